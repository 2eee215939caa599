/* A stand-in for libcuda.so.1 on machines without a GPU: device memory is host memory, kernels are host functions.
 *
 * What it promises beyond the driver's own interface is declared first: tests and the simulated `tensorrt` call it
 * through ctypes. The environment is read once, when the library is loaded:
 *
 *   FAKE_CUDA_DEVICES=N          number of GPUs, 1 by default; with 0 cuInit fails with CUDA_ERROR_NO_DEVICE
 *   FAKE_CUDA_MEMORY=BYTES       memory of each GPU, 16 GiB by default; beyond it allocations fail
 *   FAKE_CUDA_NAMES=A,B          names of the GPUs, "Simulated GPU" by default
 *   FAKE_CUDA_CAPABILITIES=90,80 compute capabilities, 90 by default
 *   FAKE_CUDA_DRIVER=13000       version of the driver
 *   FAKE_CUDA_ASYNC=0            run everything at once on the caller's thread; by default each stream has a thread
 *
 * Streams run their work in order and beside each other, so that a missing wait shows as a wrong result. New memory
 * holds 0xA5 bytes, so that what was never written shows too.
 */
#pragma once
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

typedef int Result;
typedef uint64_t Address;

/* ---- the interface of tests ---- */

/* Enqueues `kernel(argument)` on a stream as a GPU's kernel would be: in order, captured into graphs (each launch of
 * the graph calls it again with the same argument), run on the stream's thread. What it returns other than 0 becomes
 * the sticky error of the device. It must not call the driver. The argument has to live until the last run.
 * cuLaunchHostFunc does the same for `void` functions and stands for a kernel too. */
Result fakeCudaLaunch(void *stream, Result (*kernel)(void *), void *argument);

/* The device, from 0, in whose memory [address, address + size) lies within one allocation; -1 where in none. */
int fakeCudaOwner(Address address, size_t size);

/* Whether this is a live stream of the calling thread's current device. */
int fakeCudaIsStream(void *stream);

/* How many of a kind are alive: "device", "device_bytes", "pinned", "stream", "event", "context" (retained primary
 * contexts), "pushed" (on all threads' stacks), "graph", "graph_exec", "ipc"; -1 for an unknown kind. */
long fakeCudaLive(const char *kind);

/* How often the function was called, by its name without version suffix, for example "cuMemAlloc". "kernel" counts
 * what ran through fakeCudaLaunch and cuLaunchHostFunc. */
long fakeCudaCalls(const char *function);

/* Bytes copied since the last reset: "HtoD", "DtoH", "DtoD". */
long fakeCudaCopied(const char *direction);

/* Lets the nth call from now of a function, and those after it until `times` have failed, fail with `code`; codes that
 * are sticky stay with the device. The name "kernel" stands for the nth kernel to run, which then is not run. */
void fakeCudaFail(const char *function, long nth, Result code, long times);

/* Each piece of work on a stream takes so much longer. */
void fakeCudaDelay(long microseconds);

/* While held, streams take work and do not run it: events never fire. */
void fakeCudaHold(int held);

/* No failures, no sticky errors, no delay, nothing held, counters of calls and bytes at 0. */
void fakeCudaReset(void);

/* ---- what the files of the stand-in share ---- */

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
       INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
       NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_WRONG_THREAD = 908 };

#define MAX_DEVICES 16

struct context { struct device *device; };

struct device {
    int index, retained, capability;
    char name[64];
    Result sticky;
    size_t used;
    struct context primary;
};

struct event {
    int magic;
    struct device *device;
    unsigned flags;
    long asked, done; /* numbers of the last recording that was asked for and that has happened */
    int64_t nanoseconds;
    struct graph *captured_in;
};

enum kind { COPY, FILL, RECORD, WAIT, HOST, KERNEL };

struct work {
    enum kind kind;
    struct work *next;
    void *target;
    const void *source;
    size_t size, item;
    unsigned value;
    const char *direction;
    struct event *event;
    long number;
    void (*host)(void *);
    Result (*kernel)(void *);
    void *argument;
};

struct stream {
    int magic;
    struct device *device;
    struct stream *next;
    pthread_cond_t changed;
    struct work *first, *last;
    int busy, ending;
    struct graph *capture;
};

struct site { const char *name; long calls, fail_in, times; Result code; struct site *next; };

extern pthread_mutex_t fake_lock;
extern pthread_cond_t fake_changed; /* an event has happened, a stream has come to rest, a device has failed */
extern struct device fake_devices[MAX_DEVICES];
extern int fake_device_count, fake_asynchronous, fake_held, fake_driver_version;
extern long fake_delay;
extern size_t fake_memory;
extern __thread struct graph *fake_capturing; /* what the calling thread captures, or NULL */

struct site *fake_site(const char *name);
Result fake_enter(struct site *site, struct device *device);
void fake_live(const char *kind, long change);
void fake_copied(const char *direction, size_t size);
int fake_is_sticky(Result code);
void fake_fail_device(struct device *device, Result code);
struct device *fake_current(void);
Result fake_submit(struct stream *stream, struct work work);
void fake_queue(struct stream *stream, const struct work *work);
int fake_is_busy(struct device *device);
void fake_wait_for_device(struct device *device);
void fake_wake_streams(void);
void fake_invalidate_capture(void);
void fake_add_to_graph(struct graph *graph, struct work work);
struct stream *fake_stream(void *handle, Result *error);
void fake_end_capture_of(struct graph *graph);

/* A call that is counted and may be told to fail; the second form needs a current context without a sticky error. */
#define CALL(name)                                                       \
    do {                                                                 \
        static struct site *site_;                                       \
        if (!site_) site_ = fake_site(name);                             \
        Result failure_ = fake_enter(site_, fake_current());             \
        if (failure_) return failure_;                                   \
    } while (0)
#define DEVICE_CALL(name)                                                \
    struct device *device = fake_current();                              \
    CALL(name);                                                          \
    if (!device) return INVALID_CONTEXT;                                 \
    if (device->sticky) return device->sticky
/* What a thread that captures may not do: it spoils the capture. */
#define NOT_IN_CAPTURE                                                   \
    do {                                                                 \
        if (fake_capturing) {                                            \
            fake_invalidate_capture();                                   \
            return CAPTURE_UNSUPPORTED;                                  \
        }                                                                \
    } while (0)
