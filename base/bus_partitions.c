/* See bus_partitions.h. */
#include "base/bus_partitions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PARTITION 100000

mr_partition *mr_partitions_find(const mr_partitions *all, const char *topic, int32_t number) {
    for (int i = 0; i < all->ntopics; i++) {
        if (strcmp(all->topics[i].name, topic) != 0) continue;
        return number >= 0 && number < all->topics[i].n ? all->topics[i].v[number] : NULL;
    }
    return NULL;
}

/* Room for partition `number` of topic i. */
static bool make_room(mr_partitions *all, int i, int32_t number) {
    int n = all->topics[i].n;
    if (number < n) return true;
    mr_partition **v = realloc(all->topics[i].v, (size_t)(number + 1) * sizeof(*v));
    if (!v) return false;
    memset(v + n, 0, (size_t)(number + 1 - n) * sizeof(*v));
    all->topics[i].v = v;
    all->topics[i].n = number + 1;
    return true;
}

mr_partition *mr_partitions_add(mr_partitions *all, const char *topic, int32_t number) {
    mr_partition *p = mr_partitions_find(all, topic, number);
    if (p || number < 0 || number > MAX_PARTITION) return p;
    int i = 0;
    while (i < all->ntopics && strcmp(all->topics[i].name, topic) != 0) i++;
    if (i == all->ntopics || !make_room(all, i, number)) return NULL;
    p = all->topics[i].v[number] = calloc(1, sizeof(*p));
    if (!p) return NULL;
    snprintf(p->topic, sizeof(p->topic), "%s", topic);
    p->number = number;
    return p;
}

void mr_partitions_free(mr_partitions *all) {
    for (int i = 0; i < all->ntopics; i++) {
        for (int k = 0; k < all->topics[i].n; k++) {
            mr_partition *p = all->topics[i].v[k];
            if (!p) continue;
            mr_watermark_free(&p->done);
            free(p);
        }
        free(all->topics[i].v);
    }
}

mr_partition *mr_partitions_next(const mr_partitions *all, int *topic, int *number) {
    for (; *topic < all->ntopics; (*topic)++, *number = 0) {
        while (*number < all->topics[*topic].n) {
            mr_partition *p = all->topics[*topic].v[(*number)++];
            if (p && p->assigned) return p;
        }
    }
    return NULL;
}
