/* Streams, each with a thread that runs its work in order, and events. */
#define _GNU_SOURCE
#include "fake.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STREAM 0x57e4
#define EVENT 0xe7e7
#define DISABLE_TIMING 2

static struct stream *streams; /* of all devices, until their last work is done */

/* ---- running work ---- */

static void do_work(struct device *device, struct work *work) {
    static struct site *kernels;
    Result code;
    if (fake_delay) nanosleep(&(struct timespec){fake_delay / 1000000, fake_delay % 1000000 * 1000}, NULL);
    switch (work->kind) {
    case COPY:
        if (fakeCudaOwner((Address)(*work->direction == 'H' ? work->target : work->source), work->size) < 0)
            fake_fail_device(device, ILLEGAL_ADDRESS); /* freed since */
        else memmove(work->target, work->source, work->size), fake_copied(work->direction, work->size);
        break;
    case FILL: memset(work->target, work->value, work->size); break;
    case HOST: case KERNEL:
        if (!kernels) kernels = fake_site("kernel");
        code = fake_enter(kernels, device);
        if (!code && work->kind == HOST) work->host(work->argument);
        else if (!code) code = work->kernel(work->argument);
        if (code) fake_fail_device(device, code);
        break;
    case RECORD: case WAIT: break; /* of events: under the lock, below */
    }
}

static void happened(struct work *work) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (work->number > work->event->done) work->event->done = work->number;
    work->event->nanoseconds = now.tv_sec * 1000000000ll + now.tv_nsec;
    pthread_cond_broadcast(&fake_changed);
}

static void forget(struct stream *stream) {
    for (struct stream **link = &streams; *link; link = &(*link)->next)
        if (*link == stream) {
            *link = stream->next;
            break;
        }
}

/* After a sticky error nothing is run any more, as on a GPU. */
static void *run(void *argument) {
    struct stream *stream = argument;
    pthread_mutex_lock(&fake_lock);
    for (;;) {
        while (fake_held || !stream->first) {
            if (!stream->first && stream->ending) {
                forget(stream);
                pthread_mutex_unlock(&fake_lock);
                return NULL; /* the struct stays, so that a later use of the handle is seen */
            }
            pthread_cond_wait(&stream->changed, &fake_lock);
        }
        struct work *work = stream->first;
        if (!(stream->first = work->next)) stream->last = NULL;
        stream->busy = 1;
        if (work->kind == WAIT)
            while (work->event->done < work->number && !stream->device->sticky)
                pthread_cond_wait(&fake_changed, &fake_lock);
        if (!stream->device->sticky && work->kind != WAIT && work->kind != RECORD) {
            pthread_mutex_unlock(&fake_lock);
            do_work(stream->device, work);
            pthread_mutex_lock(&fake_lock);
        }
        if (work->kind == RECORD) happened(work);
        free(work);
        stream->busy = 0;
        if (!stream->first) pthread_cond_broadcast(&fake_changed);
    }
}

/* Puts work at the end of the stream; the lock is held. */
void fake_queue(struct stream *stream, const struct work *work) {
    struct work *last = malloc(sizeof *last);
    *last = *work;
    last->next = NULL;
    if (stream->last) stream->last->next = last;
    else stream->first = last;
    stream->last = last;
    pthread_cond_signal(&stream->changed);
}

Result fake_submit(struct stream *stream, struct work work) {
    if (stream && stream->capture) return fake_add_to_graph(stream->capture, work), OK;
    if (stream && fake_asynchronous) {
        pthread_mutex_lock(&fake_lock);
        fake_queue(stream, &work);
        pthread_mutex_unlock(&fake_lock);
        return OK;
    }
    struct device *device = fake_current();
    if (work.kind == RECORD) {
        pthread_mutex_lock(&fake_lock);
        happened(&work);
        pthread_mutex_unlock(&fake_lock);
    } else if (work.kind != WAIT) do_work(device, &work);
    return OK;
}

/* Whether a stream of the device has work; the lock is held. */
int fake_is_busy(struct device *device) {
    for (struct stream *each = streams; each; each = each->next)
        if (each->device == device && (each->first || each->busy)) return 1;
    return 0;
}

void fake_wait_for_device(struct device *device) {
    pthread_mutex_lock(&fake_lock);
    while (fake_is_busy(device)) pthread_cond_wait(&fake_changed, &fake_lock);
    pthread_mutex_unlock(&fake_lock);
}

void fake_wake_streams(void) {
    pthread_mutex_lock(&fake_lock);
    for (struct stream *each = streams; each; each = each->next) pthread_cond_signal(&each->changed);
    pthread_mutex_unlock(&fake_lock);
}

/* ---- streams ---- */

/* The stream behind a handle; NULL without an error for the default stream. */
struct stream *fake_stream(void *handle, Result *error) {
    struct stream *stream = handle;
    if (stream && (stream->magic != STREAM || stream->device != fake_current())) *error = INVALID_HANDLE;
    return stream;
}

int fakeCudaIsStream(void *handle) {
    Result error = OK;
    return fake_stream(handle, &error) && !error;
}

static Result create_stream(struct device *device, struct stream **out) {
    struct stream *stream = calloc(1, sizeof *stream);
    stream->magic = STREAM;
    stream->device = device;
    pthread_cond_init(&stream->changed, NULL);
    pthread_mutex_lock(&fake_lock);
    stream->next = streams;
    streams = stream;
    pthread_mutex_unlock(&fake_lock);
    if (fake_asynchronous) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, run, stream)) return OUT_OF_MEMORY;
        pthread_detach(thread);
    }
    fake_live("stream", 1);
    return *out = stream, OK;
}

Result cuStreamCreate(struct stream **out, unsigned flags) {
    DEVICE_CALL("cuStreamCreate");
    (void)flags;
    return create_stream(device, out);
}

Result cuStreamCreateWithPriority(struct stream **out, unsigned flags, int priority) {
    (void)priority;
    return cuStreamCreate(out, flags);
}

#define STREAM_OF(handle)                                     \
    Result error = OK;                                        \
    struct stream *stream = fake_stream(handle, &error);      \
    if (error) return error

/* The work that the stream has is still done, as the driver does it. */
Result cuStreamDestroy_v2(void *handle) {
    DEVICE_CALL("cuStreamDestroy");
    STREAM_OF(handle);
    if (!stream) return INVALID_HANDLE;
    pthread_mutex_lock(&fake_lock);
    stream->magic = 0;
    stream->ending = 1;
    if (fake_asynchronous) pthread_cond_signal(&stream->changed);
    else forget(stream);
    pthread_mutex_unlock(&fake_lock);
    fake_live("stream", -1);
    return OK;
}

Result cuStreamQuery(void *handle) {
    DEVICE_CALL("cuStreamQuery");
    STREAM_OF(handle);
    if (!stream) return OK;
    if (stream->capture) return fake_invalidate_capture(), CAPTURE_UNSUPPORTED;
    pthread_mutex_lock(&fake_lock);
    int resting = !stream->first && !stream->busy;
    pthread_mutex_unlock(&fake_lock);
    return resting ? OK : NOT_READY;
}

Result cuStreamSynchronize(void *handle) {
    DEVICE_CALL("cuStreamSynchronize");
    STREAM_OF(handle);
    if (!stream) return OK;
    if (stream->capture) return fake_invalidate_capture(), CAPTURE_UNSUPPORTED;
    pthread_mutex_lock(&fake_lock);
    while (stream->first || stream->busy) pthread_cond_wait(&fake_changed, &fake_lock);
    pthread_mutex_unlock(&fake_lock);
    return device->sticky;
}

Result cuLaunchHostFunc(void *handle, void (*function)(void *), void *argument) {
    DEVICE_CALL("cuLaunchHostFunc");
    STREAM_OF(handle);
    return fake_submit(stream, (struct work){.kind = HOST, .host = function, .argument = argument});
}

Result fakeCudaLaunch(void *handle, Result (*kernel)(void *), void *argument) {
    DEVICE_CALL("fakeCudaLaunch");
    STREAM_OF(handle);
    return fake_submit(stream, (struct work){.kind = KERNEL, .kernel = kernel, .argument = argument});
}

/* ---- events ---- */

#define EVENT_OF(handle)                                                                            \
    struct event *event = handle;                                                                   \
    if (!event || event->magic != EVENT || event->device != device) return INVALID_HANDLE

Result cuEventCreate(struct event **out, unsigned flags) {
    DEVICE_CALL("cuEventCreate");
    struct event *event = calloc(1, sizeof *event);
    *event = (struct event){.magic = EVENT, .device = device, .flags = flags};
    fake_live("event", 1);
    return *out = event, OK;
}

/* The struct stays: work that waits for the event may still be queued. */
Result cuEventDestroy_v2(void *handle) {
    DEVICE_CALL("cuEventDestroy");
    EVENT_OF(handle);
    event->magic = 0;
    fake_live("event", -1);
    return OK;
}

Result cuEventRecord(void *handle, void *on) {
    DEVICE_CALL("cuEventRecord");
    EVENT_OF(handle);
    STREAM_OF(on);
    if (stream && stream->capture) return event->captured_in = stream->capture, OK;
    event->captured_in = NULL;
    pthread_mutex_lock(&fake_lock);
    long number = ++event->asked;
    pthread_mutex_unlock(&fake_lock);
    return fake_submit(stream, (struct work){.kind = RECORD, .event = event, .number = number});
}

/* A stream that waits for an event of a capture joins the capture. */
Result cuStreamWaitEvent(void *on, void *handle, unsigned flags) {
    DEVICE_CALL("cuStreamWaitEvent");
    EVENT_OF(handle);
    STREAM_OF(on);
    (void)flags;
    if (!stream) return OK;
    if (event->captured_in && event->captured_in == fake_capturing) return stream->capture = fake_capturing, OK;
    if (stream->capture) return OK; /* an event of before the capture has no place in the graph */
    return fake_submit(stream, (struct work){.kind = WAIT, .event = event, .number = event->asked});
}

Result cuEventQuery(void *handle) {
    DEVICE_CALL("cuEventQuery");
    EVENT_OF(handle);
    return event->done >= event->asked ? OK : NOT_READY;
}

Result cuEventSynchronize(void *handle) {
    DEVICE_CALL("cuEventSynchronize");
    EVENT_OF(handle);
    pthread_mutex_lock(&fake_lock);
    long number = event->asked;
    while (event->done < number && !device->sticky) pthread_cond_wait(&fake_changed, &fake_lock);
    pthread_mutex_unlock(&fake_lock);
    return device->sticky;
}

Result cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
    DEVICE_CALL("cuEventElapsedTime");
    struct event *first, *last;
    { EVENT_OF(start); first = event; }
    { EVENT_OF(end); last = event; }
    if (!first->asked || !last->asked || (first->flags | last->flags) & DISABLE_TIMING) return INVALID_HANDLE;
    if (first->done < first->asked || last->done < last->asked) return NOT_READY;
    return *milliseconds = (last->nanoseconds - first->nanoseconds) / 1e6f, OK;
}

/* Ends what belongs to a capture: every stream that had joined it is a plain stream again. */
void fake_end_capture_of(struct graph *graph) {
    pthread_mutex_lock(&fake_lock);
    for (struct stream *each = streams; each; each = each->next)
        if (each->capture == graph) each->capture = NULL;
    pthread_mutex_unlock(&fake_lock);
}
