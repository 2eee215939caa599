/* Device and pinned memory, synchronous copies, and memory shared between processes by handle. */
#define _GNU_SOURCE
#include "fake.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NEW_BYTE 0xA5
#define FREED_BYTE 0xDD
#define POISON_LIMIT (4u << 20)

/* Device memory is a memfd, so that another process can map it by the handle; `file` is -1 for what was opened so. */
struct allocation {
    Address address;
    size_t size;
    struct device *device;
    int file;
    struct allocation *next;
};
struct handle { char mark[8]; int process, file, device, unused; size_t size; char rest[32]; };
_Static_assert(sizeof(struct handle) == 64, "CUipcMemHandle has 64 bytes");

static struct allocation *device_memory, *pinned_memory, *freed;

static void add(struct allocation **list, Address address, size_t size, struct device *device, int file) {
    struct allocation *new = malloc(sizeof *new);
    pthread_mutex_lock(&fake_lock);
    *new = (struct allocation){address, size, device, file, *list};
    *list = new;
    pthread_mutex_unlock(&fake_lock);
}

/* Takes the allocation that starts at `address` off the list; size 0 where there is none. */
static struct allocation take(struct allocation **list, Address address) {
    struct allocation found = {0};
    pthread_mutex_lock(&fake_lock);
    for (struct allocation **link = list; *link; link = &(*link)->next)
        if ((*link)->address == address) {
            struct allocation *old = *link;
            found = *old;
            *link = old->next;
            free(old);
            break;
        }
    pthread_mutex_unlock(&fake_lock);
    return found;
}

static struct allocation around(struct allocation **list, Address address, size_t size) {
    struct allocation found = {0};
    pthread_mutex_lock(&fake_lock);
    for (struct allocation *each = *list; each; each = each->next)
        if (each->address <= address && address + size <= each->address + each->size) found = *each;
    pthread_mutex_unlock(&fake_lock);
    return found;
}

/* The driver waits for the device before it frees. Here kernels may be Python functions and the caller may hold
 * Python's lock, so nothing can wait: what is freed is unusable at once, and is unmapped when its device rests. */
static void release(struct allocation old) {
    memset((void *)old.address, FREED_BYTE, old.size < POISON_LIMIT ? old.size : POISON_LIMIT);
    add(&freed, old.address, old.size, old.device, old.file);
    struct allocation *unused = NULL;
    pthread_mutex_lock(&fake_lock);
    for (struct allocation **link = &freed, *each; (each = *link);) {
        if (fake_is_busy(each->device)) {
            link = &each->next;
            continue;
        }
        *link = each->next;
        each->next = unused;
        unused = each;
    }
    pthread_mutex_unlock(&fake_lock);
    for (struct allocation *each = unused, *next; each; each = next) {
        next = each->next;
        if (each->file < 0) free((void *)each->address);
        else munmap((void *)each->address, each->size), close(each->file);
        free(each);
    }
}

int fakeCudaOwner(Address address, size_t size) {
    struct allocation found = around(&device_memory, address, size);
    return found.size ? found.device->index : -1;
}

Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    DEVICE_CALL("cuMemGetInfo");
    *total = fake_memory;
    return *free_bytes = fake_memory - device->used, OK;
}

Result cuMemAlloc_v2(Address *out, size_t size) {
    DEVICE_CALL("cuMemAlloc");
    NOT_IN_CAPTURE;
    if (!size) return INVALID_VALUE;
    pthread_mutex_lock(&fake_lock);
    int fits = device->used + size <= fake_memory;
    if (fits) device->used += size;
    pthread_mutex_unlock(&fake_lock);
    if (!fits) return OUT_OF_MEMORY;
    int file = memfd_create("fake device memory", MFD_CLOEXEC);
    void *memory = file < 0 || ftruncate(file, size) ? MAP_FAILED
                                                     : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) return OUT_OF_MEMORY;
    memset(memory, NEW_BYTE, size < POISON_LIMIT ? size : POISON_LIMIT);
    add(&device_memory, (Address)memory, size, device, file);
    fake_live("device", 1);
    fake_live("device_bytes", size);
    return *out = (Address)memory, OK;
}

Result cuMemFree_v2(Address address) {
    DEVICE_CALL("cuMemFree");
    if (!address) return OK;
    struct allocation old = take(&device_memory, address);
    if (!old.size || old.file < 0) return INVALID_VALUE;
    release(old);
    pthread_mutex_lock(&fake_lock);
    old.device->used -= old.size;
    pthread_mutex_unlock(&fake_lock);
    fake_live("device", -1);
    fake_live("device_bytes", -(long)old.size);
    return OK;
}

Result cuMemHostAlloc(void **out, size_t size, unsigned flags) {
    DEVICE_CALL("cuMemHostAlloc");
    NOT_IN_CAPTURE;
    (void)flags;
    if (!size) return INVALID_VALUE;
    if (posix_memalign(out, 4096, size)) return OUT_OF_MEMORY;
    memset(*out, NEW_BYTE, size < POISON_LIMIT ? size : POISON_LIMIT);
    add(&pinned_memory, (Address)*out, size, device, -1);
    fake_live("pinned", 1);
    return OK;
}

Result cuMemFreeHost(void *memory) {
    DEVICE_CALL("cuMemFreeHost");
    struct allocation old = take(&pinned_memory, (Address)memory);
    if (!old.size) return INVALID_VALUE;
    release(old);
    fake_live("pinned", -1);
    return OK;
}

Result cuMemHostGetFlags(unsigned *flags, void *memory) { return (void)memory, *flags = 0, OK; }

Result cuMemHostGetDevicePointer_v2(Address *address, void *memory, unsigned flags) {
    (void)flags;
    return *address = (Address)memory, OK;
}

/* ---- between processes ---- */

Result cuIpcGetMemHandle(struct handle *handle, Address address) {
    DEVICE_CALL("cuIpcGetMemHandle");
    struct allocation found = around(&device_memory, address, 1);
    if (!found.size || found.file < 0) return INVALID_VALUE;
    *handle = (struct handle){"fakeipc", getpid(), found.file, found.device->index, 0, found.size, ""};
    return OK;
}

Result cuIpcOpenMemHandle_v2(Address *out, struct handle handle, unsigned flags) {
    DEVICE_CALL("cuIpcOpenMemHandle");
    (void)flags;
    if (memcmp(handle.mark, "fakeipc", 8)) return INVALID_VALUE;
    if (handle.process == getpid() || handle.device != device->index) return INVALID_CONTEXT;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", handle.process, handle.file);
    int file = open(path, O_RDWR);
    void *memory = file < 0 ? MAP_FAILED : mmap(NULL, handle.size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (memory == MAP_FAILED) return INVALID_VALUE;
    add(&device_memory, (Address)memory, handle.size, device, -1);
    fake_live("ipc", 1);
    return *out = (Address)memory, OK;
}

Result cuIpcCloseMemHandle(Address address) {
    DEVICE_CALL("cuIpcCloseMemHandle");
    struct allocation found = around(&device_memory, address, 1);
    if (!found.size || found.file >= 0) return INVALID_VALUE;
    found = take(&device_memory, found.address);
    munmap((void *)found.address, found.size);
    fake_live("ipc", -1);
    return OK;
}

/* ---- copies ---- */

static Result copy(struct device *device, void *target, const void *source, size_t size, Address on_device,
                   const char *direction) {
    NOT_IN_CAPTURE;
    if (fakeCudaOwner(on_device, size) != device->index) return INVALID_VALUE;
    memmove(target, source, size);
    fake_copied(direction, size);
    return OK;
}

static Result copy_later(struct device *device, void *handle, void *target, const void *source, size_t size,
                         Address on_device, const char *direction) {
    Result error = OK;
    struct stream *stream = fake_stream(handle, &error);
    if (error) return error;
    if (fakeCudaOwner(on_device, size) != device->index) return INVALID_VALUE;
    return fake_submit(stream, (struct work){
        .kind = COPY, .target = target, .source = source, .size = size, .direction = direction});
}

Result cuMemcpyHtoD_v2(Address target, const void *source, size_t size) {
    DEVICE_CALL("cuMemcpyHtoD");
    return copy(device, (void *)target, source, size, target, "HtoD");
}
Result cuMemcpyDtoH_v2(void *target, Address source, size_t size) {
    DEVICE_CALL("cuMemcpyDtoH");
    return copy(device, target, (void *)source, size, source, "DtoH");
}
Result cuMemcpyDtoD_v2(Address target, Address source, size_t size) {
    DEVICE_CALL("cuMemcpyDtoD");
    return copy(device, (void *)target, (void *)source, size, source, "DtoD");
}
Result cuMemcpyHtoDAsync_v2(Address target, const void *source, size_t size, void *stream) {
    DEVICE_CALL("cuMemcpyHtoDAsync");
    return copy_later(device, stream, (void *)target, source, size, target, "HtoD");
}
Result cuMemcpyDtoHAsync_v2(void *target, Address source, size_t size, void *stream) {
    DEVICE_CALL("cuMemcpyDtoHAsync");
    return copy_later(device, stream, target, (void *)source, size, source, "DtoH");
}
Result cuMemcpyDtoDAsync_v2(Address target, Address source, size_t size, void *stream) {
    DEVICE_CALL("cuMemcpyDtoDAsync");
    return copy_later(device, stream, (void *)target, (void *)source, size, source, "DtoD");
}
Result cuMemsetD8Async(Address target, unsigned char value, size_t size, void *handle) {
    DEVICE_CALL("cuMemsetD8Async");
    Result error = OK;
    struct stream *stream = fake_stream(handle, &error);
    if (error) return error;
    if (fakeCudaOwner(target, size) != device->index) return INVALID_VALUE;
    return fake_submit(stream, (struct work){.kind = FILL, .target = (void *)target, .value = value, .size = size});
}
