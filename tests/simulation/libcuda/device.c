/* Devices, their properties and primary contexts, and the stack of contexts that each thread has. */
#include "fake.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct device fake_devices[MAX_DEVICES];
int fake_device_count = 1, fake_asynchronous = 1, fake_driver_version = 13000;
size_t fake_memory = 16ull << 30;

static __thread struct context *stack[64];
static __thread int depth;

static long number(const char *variable, long otherwise) {
    const char *text = getenv(variable);
    return text && *text ? atol(text) : otherwise;
}

/* The item at `index` of a list with commas, or the last one. */
static void item(const char *variable, const char *otherwise, int index, char *out, size_t size) {
    const char *text = getenv(variable), *end;
    if (!text || !*text) text = otherwise;
    while (index-- && (end = strchr(text, ','))) text = end + 1;
    end = strchr(text, ',');
    snprintf(out, size, "%.*s", end ? (int)(end - text) : (int)strlen(text), text);
}

__attribute__((constructor)) static void read_environment(void) {
    char text[16];
    fake_device_count = number("FAKE_CUDA_DEVICES", 1);
    if (fake_device_count > MAX_DEVICES) fake_device_count = MAX_DEVICES;
    fake_memory = number("FAKE_CUDA_MEMORY", 16l << 30);
    fake_driver_version = number("FAKE_CUDA_DRIVER", 13000);
    fake_asynchronous = number("FAKE_CUDA_ASYNC", 1);
    for (int i = 0; i < MAX_DEVICES; i++) {
        struct device *device = &fake_devices[i];
        device->index = i;
        device->primary.device = device;
        item("FAKE_CUDA_NAMES", "Simulated GPU", i, device->name, sizeof device->name);
        item("FAKE_CUDA_CAPABILITIES", "90", i, text, sizeof text);
        device->capability = atoi(text);
    }
}

struct device *fake_current(void) { return depth && stack[depth - 1] ? stack[depth - 1]->device : NULL; }

Result cuInit(unsigned flags) {
    (void)flags;
    CALL("cuInit");
    return fake_device_count ? OK : NO_DEVICE;
}

Result cuDriverGetVersion(int *version) { return *version = fake_driver_version, OK; }
Result cuDeviceGetCount(int *count) { return *count = fake_device_count, OK; }

#define CHECK_DEVICE(index) if (index < 0 || index >= fake_device_count) return INVALID_DEVICE

Result cuDeviceGet(int *device, int index) {
    CHECK_DEVICE(index);
    return *device = index, OK;
}

Result cuDeviceGetName(char *name, int size, int index) {
    CHECK_DEVICE(index);
    snprintf(name, size, "%s", fake_devices[index].name);
    return OK;
}

Result cuDeviceGetPCIBusId(char *id, int size, int index) {
    CHECK_DEVICE(index);
    snprintf(id, size, "0000:%02X:00.0", index + 1);
    return OK;
}

Result cuDeviceGetByPCIBusId(int *device, const char *id) {
    unsigned bus = 0;
    if (sscanf(id, "0000:%X:00.0", &bus) != 1 || !bus || (int)bus > fake_device_count) return INVALID_DEVICE;
    return *device = bus - 1, OK;
}

Result cuDeviceGetUuid_v2(unsigned char *uuid, int index) {
    CHECK_DEVICE(index);
    memcpy(uuid, "simulated-gpu-\0\0", 16);
    uuid[15] = index;
    return OK;
}

Result cuDeviceTotalMem_v2(size_t *bytes, int index) {
    CHECK_DEVICE(index);
    return *bytes = fake_memory, OK;
}

Result cuDeviceComputeCapability(int *major, int *minor, int index) {
    CHECK_DEVICE(index);
    *major = fake_devices[index].capability / 10;
    *minor = fake_devices[index].capability % 10;
    return OK;
}

Result cuDeviceGetAttribute(int *value, int attribute, int index) {
    CHECK_DEVICE(index);
    switch (attribute) {
    case 1: *value = 1024; break;    /* threads per block */
    case 10: *value = 32; break;     /* warp size */
    case 14: *value = 512; break;    /* texture alignment */
    case 16: *value = 132; break;    /* multiprocessors */
    case 33: *value = index + 1; break; /* PCI bus */
    case 34: case 50: *value = 0; break; /* PCI device and domain */
    case 75: *value = fake_devices[index].capability / 10; break;
    case 76: *value = fake_devices[index].capability % 10; break;
    default: *value = 1;
    }
    return OK;
}

Result cuDevicePrimaryCtxRetain(struct context **context, int index) {
    CALL("cuDevicePrimaryCtxRetain");
    CHECK_DEVICE(index);
    if (fake_devices[index].sticky) return fake_devices[index].sticky;
    pthread_mutex_lock(&fake_lock);
    fake_devices[index].retained++;
    pthread_mutex_unlock(&fake_lock);
    fake_live("context", 1);
    return *context = &fake_devices[index].primary, OK;
}

Result cuDevicePrimaryCtxRelease_v2(int index) {
    CALL("cuDevicePrimaryCtxRelease");
    CHECK_DEVICE(index);
    pthread_mutex_lock(&fake_lock);
    int held = fake_devices[index].retained > 0;
    if (held) fake_devices[index].retained--;
    pthread_mutex_unlock(&fake_lock);
    if (held) fake_live("context", -1);
    return held ? OK : INVALID_CONTEXT;
}

Result cuCtxPushCurrent_v2(struct context *context) {
    CALL("cuCtxPushCurrent");
    if (!context || !context->device->retained) return INVALID_CONTEXT;
    stack[depth++] = context;
    fake_live("pushed", 1);
    return OK;
}

Result cuCtxPopCurrent_v2(struct context **context) {
    CALL("cuCtxPopCurrent");
    if (!depth) return INVALID_CONTEXT;
    depth--;
    fake_live("pushed", -1);
    if (context) *context = stack[depth];
    return OK;
}

Result cuCtxGetCurrent(struct context **context) { return *context = depth ? stack[depth - 1] : NULL, OK; }

Result cuCtxSetCurrent(struct context *context) {
    if (depth) stack[depth - 1] = context;
    else if (context) stack[depth++] = context, fake_live("pushed", 1);
    return OK;
}

Result cuCtxGetDevice(int *index) {
    struct device *device = fake_current();
    if (!device) return INVALID_CONTEXT;
    return *index = device->index, OK;
}

Result cuCtxGetApiVersion(struct context *context, unsigned *version) {
    (void)context;
    return *version = fake_driver_version, OK;
}

Result cuCtxSynchronize(void) {
    DEVICE_CALL("cuCtxSynchronize");
    NOT_IN_CAPTURE;
    fake_wait_for_device(device);
    return device->sticky;
}

/* Only primary contexts exist here. */
Result cuCtxCreate_v4(struct context **context, void *parameters, unsigned flags, int device) {
    (void)context, (void)parameters, (void)flags, (void)device;
    return NOT_SUPPORTED;
}
Result cuCtxDetach(struct context *context) { return (void)context, NOT_SUPPORTED; }
