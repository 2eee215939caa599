/* Graphs: work that is captured from streams instead of run, and launched as often as wanted. */
#include "fake.h"
#include <stdlib.h>

#define GRAPH 0x94a9
#define EXECUTABLE 0xe8ec
#define THREAD_LOCAL 1

struct graph {
    int magic, invalid;
    struct work *first, *last;
    size_t size;
};

__thread struct graph *fake_capturing;

void fake_invalidate_capture(void) {
    if (fake_capturing) fake_capturing->invalid = 1;
}

void fake_add_to_graph(struct graph *graph, struct work work) {
    struct work *last = malloc(sizeof *last);
    *last = work;
    last->next = NULL;
    if (graph->last) graph->last->next = last;
    else graph->first = last;
    graph->last = last;
    graph->size++;
}

static struct graph *new_graph(int magic) {
    struct graph *graph = calloc(1, sizeof *graph);
    graph->magic = magic;
    fake_live(magic == GRAPH ? "graph" : "graph_exec", 1);
    return graph;
}

/* The empty struct stays, so that a later use of the handle is seen. */
static Result destroy(struct graph *graph, int magic) {
    if (!graph || graph->magic != magic) return INVALID_VALUE;
    graph->magic = 0;
    for (struct work *each = graph->first, *next; each; each = next) {
        next = each->next;
        free(each);
    }
    fake_live(magic == GRAPH ? "graph" : "graph_exec", -1);
    return OK;
}

Result cuStreamBeginCapture_v2(void *handle, int mode) {
    DEVICE_CALL("cuStreamBeginCapture");
    Result error = OK;
    struct stream *stream = fake_stream(handle, &error);
    if (error) return error;
    if (!stream) return CAPTURE_UNSUPPORTED;
    if (mode != THREAD_LOCAL) return NOT_SUPPORTED;
    if (stream->capture || fake_capturing) return INVALID_VALUE;
    stream->capture = fake_capturing = new_graph(GRAPH);
    return OK;
}

/* One that is told to fail ends the capture all the same, as the driver's does. */
static Result may_end(struct device *device) {
    CALL("cuStreamEndCapture");
    return device ? device->sticky : INVALID_CONTEXT;
}

Result cuStreamEndCapture(void *handle, struct graph **out) {
    Result error = OK, failure = may_end(fake_current());
    struct stream *stream = fake_stream(handle, &error);
    *out = NULL;
    if (error) return error;
    if (!stream || !stream->capture) return INVALID_VALUE;
    if (stream->capture != fake_capturing) return CAPTURE_WRONG_THREAD;
    struct graph *graph = fake_capturing;
    fake_capturing = stream->capture = NULL;
    fake_end_capture_of(graph);
    if (graph->invalid) return destroy(graph, GRAPH), CAPTURE_INVALIDATED;
    if (failure) return destroy(graph, GRAPH), failure;
    return *out = graph, OK;
}

Result cuStreamIsCapturing(void *handle, int *status) {
    DEVICE_CALL("cuStreamIsCapturing");
    Result error = OK;
    struct stream *stream = fake_stream(handle, &error);
    if (error) return error;
    return *status = !stream || !stream->capture ? 0 : stream->capture == fake_capturing && fake_capturing->invalid ? 2 : 1, OK;
}

Result cuGraphGetNodes(struct graph *graph, void **nodes, size_t *count) {
    CALL("cuGraphGetNodes");
    if (!graph || graph->magic != GRAPH || nodes) return INVALID_VALUE;
    return *count = graph->size, OK;
}

Result cuGraphInstantiateWithFlags(struct graph **out, struct graph *graph, unsigned long long flags) {
    DEVICE_CALL("cuGraphInstantiate");
    (void)flags;
    if (!graph || graph->magic != GRAPH) return INVALID_VALUE;
    struct graph *executable = new_graph(EXECUTABLE);
    for (struct work *each = graph->first; each; each = each->next) fake_add_to_graph(executable, *each);
    return *out = executable, OK;
}

Result cuGraphLaunch(struct graph *executable, void *handle) {
    DEVICE_CALL("cuGraphLaunch");
    Result error = OK;
    struct stream *stream = fake_stream(handle, &error);
    if (error) return error;
    if (!executable || executable->magic != EXECUTABLE) return INVALID_VALUE;
    if (stream && stream->capture) return NOT_SUPPORTED;
    for (struct work *each = executable->first; each; each = each->next) fake_submit(stream, *each);
    return OK;
}

Result cuGraphDestroy(struct graph *graph) {
    CALL("cuGraphDestroy");
    return destroy(graph, GRAPH);
}

Result cuGraphExecDestroy(struct graph *executable) {
    CALL("cuGraphExecDestroy");
    return destroy(executable, EXECUTABLE);
}
