/* Counters, injected failures, error texts and the switches of tests. */
#define _GNU_SOURCE
#include "fake.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t fake_changed = PTHREAD_COND_INITIALIZER;
int fake_held;
long fake_delay;

static struct site *sites;
static struct { const char *name; long count; } alive[] = {
    {"device", 0}, {"device_bytes", 0}, {"pinned", 0}, {"stream", 0}, {"event", 0}, {"context", 0},
    {"pushed", 0}, {"graph", 0}, {"graph_exec", 0}, {"ipc", 0},
};
static struct { const char *name; long bytes; } copied[] = {{"HtoD", 0}, {"DtoH", 0}, {"DtoD", 0}};

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

struct site *fake_site(const char *name) {
    struct site *site;
    pthread_mutex_lock(&fake_lock);
    for (site = sites; site && strcmp(site->name, name); site = site->next) {}
    if (!site) {
        site = calloc(1, sizeof *site);
        site->name = strdup(name);
        site->next = sites;
        sites = site;
    }
    pthread_mutex_unlock(&fake_lock);
    return site;
}

Result fake_enter(struct site *site, struct device *device) {
    Result code = OK;
    __atomic_add_fetch(&site->calls, 1, __ATOMIC_RELAXED);
    if (!__atomic_load_n(&site->fail_in, __ATOMIC_RELAXED)) return OK;
    pthread_mutex_lock(&fake_lock);
    if (site->fail_in && --site->fail_in == 0) {
        code = site->code;
        site->fail_in = --site->times > 0;
    }
    pthread_mutex_unlock(&fake_lock);
    if (code && device && fake_is_sticky(code)) fake_fail_device(device, code);
    return code;
}

void fakeCudaFail(const char *function, long nth, Result code, long times) {
    struct site *site = fake_site(function);
    pthread_mutex_lock(&fake_lock);
    site->code = code;
    site->times = times;
    __atomic_store_n(&site->fail_in, nth, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&fake_lock);
}

long fakeCudaCalls(const char *function) { return __atomic_load_n(&fake_site(function)->calls, __ATOMIC_RELAXED); }

void fake_live(const char *kind, long change) {
    for (size_t i = 0; i < LENGTH(alive); i++)
        if (!strcmp(alive[i].name, kind)) __atomic_add_fetch(&alive[i].count, change, __ATOMIC_RELAXED);
}

long fakeCudaLive(const char *kind) {
    for (size_t i = 0; i < LENGTH(alive); i++)
        if (!strcmp(alive[i].name, kind)) return __atomic_load_n(&alive[i].count, __ATOMIC_RELAXED);
    return -1;
}

void fake_copied(const char *direction, size_t size) {
    for (size_t i = 0; i < LENGTH(copied); i++)
        if (!strcmp(copied[i].name, direction)) __atomic_add_fetch(&copied[i].bytes, size, __ATOMIC_RELAXED);
}

long fakeCudaCopied(const char *direction) {
    for (size_t i = 0; i < LENGTH(copied); i++)
        if (!strcmp(copied[i].name, direction)) return __atomic_load_n(&copied[i].bytes, __ATOMIC_RELAXED);
    return -1;
}

void fakeCudaDelay(long microseconds) { __atomic_store_n(&fake_delay, microseconds, __ATOMIC_RELAXED); }

void fakeCudaHold(int held) {
    pthread_mutex_lock(&fake_lock);
    fake_held = held;
    pthread_mutex_unlock(&fake_lock);
    fake_wake_streams();
}

void fakeCudaReset(void) {
    pthread_mutex_lock(&fake_lock);
    for (struct site *site = sites; site; site = site->next) site->calls = site->fail_in = 0;
    for (int i = 0; i < MAX_DEVICES; i++) fake_devices[i].sticky = OK;
    for (size_t i = 0; i < LENGTH(copied); i++) copied[i].bytes = 0;
    pthread_mutex_unlock(&fake_lock);
    fakeCudaDelay(0);
    fakeCudaHold(0);
}

/* ---- errors ---- */

static const struct { Result code; int sticky; const char *name, *text; } errors[] = {
    {0, 0, "CUDA_SUCCESS", "no error"},
    {1, 0, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, 0, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, 0, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {46, 1, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, 0, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, 0, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {201, 0, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {214, 1, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {400, 0, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, 0, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, 0, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, 1, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, 0, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {702, 1, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {709, 1, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {710, 1, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {714, 1, "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"},
    {715, 1, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    {716, 1, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {717, 1, "CUDA_ERROR_INVALID_ADDRESS_SPACE", "operation not supported on global/shared address space"},
    {718, 1, "CUDA_ERROR_INVALID_PC", "invalid program counter"},
    {719, 1, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, 0, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {900, 0, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {901, 0, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {908, 0, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"},
    {999, 1, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

int fake_is_sticky(Result code) {
    for (size_t i = 0; i < LENGTH(errors); i++)
        if (errors[i].code == code) return errors[i].sticky;
    return 0;
}

void fake_fail_device(struct device *device, Result code) {
    pthread_mutex_lock(&fake_lock);
    if (!device->sticky) device->sticky = code;
    pthread_cond_broadcast(&fake_changed);
    pthread_mutex_unlock(&fake_lock);
}

Result cuGetErrorString(Result code, const char **text) {
    for (size_t i = 0; i < LENGTH(errors); i++)
        if (errors[i].code == code) return *text = errors[i].text, OK;
    return *text = NULL, INVALID_VALUE;
}

Result cuGetErrorName(Result code, const char **name) {
    for (size_t i = 0; i < LENGTH(errors); i++)
        if (errors[i].code == code) return *name = errors[i].name, OK;
    return *name = NULL, INVALID_VALUE;
}

/* The newest version of a function is served, as the driver does for callers that were built against new headers. */
Result cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    static const char *suffixes[] = {"WithFlags", "_v4", "_v3", "_v2", ""};
    void *library = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_LAZY);
    char name[128];
    (void)version, (void)flags;
    *function = NULL;
    for (size_t i = 0; i < LENGTH(suffixes) && !*function; i++) {
        if (i == 0 && strcmp(symbol, "cuGraphInstantiate")) continue;
        snprintf(name, sizeof name, "%s%s", symbol, suffixes[i]);
        *function = dlsym(library ? library : RTLD_DEFAULT, name);
    }
    if (library) dlclose(library);
    if (status) *status = !*function;
    return *function ? OK : NOT_FOUND;
}
