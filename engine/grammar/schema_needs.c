/* What is possible: the least nesting of each node, and whether any value fits. See schema.h. */
#include "engine/grammar/schema.h"

#include <stdlib.h>

/* Every node that can be reached, each once. */
typedef struct node_list {
    node **v;
    size_t n, cap;
} node_list;

static int list_add(node_list *l, const node *of) {
    node *n = (node *)of;
    if (!n || n->listed) return 0;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        node **v = realloc(l->v, cap * sizeof *v);
        if (!v) return -1;
        l->v = v;
        l->cap = cap;
    }
    n->listed = true;
    l->v[l->n++] = n;
    return 0;
}

static int list_children(node_list *l, const node *n) {
    int rc = 0;
    if (n->kind == NODE_ARRAY) {
        for (uint32_t i = 0; i < n->array.nfirst; i++) rc |= list_add(l, n->array.first[i]);
        rc |= list_add(l, n->array.rest);
    } else if (n->kind == NODE_OBJECT) {
        for (uint32_t i = 0; i < n->object.n; i++) rc |= list_add(l, n->object.v[i].value);
        rc |= list_add(l, n->object.additional);
    } else if (n->kind == NODE_UNION) {
        for (uint32_t i = 0; i < n->any.n; i++) rc |= list_add(l, n->any.v[i]);
    } else if (n->kind == NODE_SEQUENCE) {
        for (uint32_t i = 0; i < n->sequence.n; i++) rc |= list_add(l, n->sequence.v[i]);
        rc |= list_add(l, n->sequence.again);
    }
    return rc;
}

static int within(int need) {
    return need >= NODE_NEVER ? NODE_NEVER : need + 1;
}

/* What a node needs, as far as is known of its parts: at first all but leaves seem impossible. */
static int need_of(const node *n) {
    int need = 0;
    if (n->kind == NODE_SEQUENCE) {
        for (uint32_t i = 0; i < n->sequence.n; i++)
            need = n->sequence.v[i]->need > need ? n->sequence.v[i]->need : need;
        return within(need);
    }
    if (n->kind == NODE_UNION) {
        need = NODE_NEVER;
        for (uint32_t i = 0; i < n->any.n; i++) need = n->any.v[i]->need < need ? n->any.v[i]->need : need;
        return need;
    }
    if (n->kind == NODE_ARRAY) {
        for (uint32_t i = 0; i < n->array.min && n->array.min <= n->array.max; i++) {
            const node *item = i < n->array.nfirst ? n->array.first[i] : n->array.rest;
            if (item->need > need) need = item->need;
            if (i >= n->array.nfirst) break;
        }
        return n->array.min > n->array.max ? NODE_NEVER : within(need);
    }
    for (uint32_t i = 0; i < n->object.n; i++) {
        if (n->object.v[i].required && n->object.v[i].value->need > need) need = n->object.v[i].value->need;
    }
    return within(need);
}

static bool is_leaf(const node *n) {
    return n->kind == NODE_LITERALS || n->kind == NODE_STRING || n->kind == NODE_NUMBER ||
           n->kind == NODE_TEXT;
}

static void find_needs(const node_list *l) {
    bool changed = true;
    for (size_t i = 0; i < l->n; i++) {
        node *n = l->v[i];
        if (!is_leaf(n)) n->need = NODE_NEVER;
        if (n->kind == NODE_LITERALS && n->literals.n == 0) n->need = NODE_NEVER;
    }
    while (changed) {
        changed = false;
        for (size_t i = 0; i < l->n; i++) {
            node *n = l->v[i];
            int need = is_leaf(n) ? n->need : need_of(n);
            changed |= need < n->need;
            n->need = need;
        }
    }
}

/* What a value may begin as: the leaves of unions of unions. A union that reaches itself through unions alone would never come
 * to a value. */
typedef struct leaf_count {
    int leaves, unions;
} leaf_count;

static int count_leaves(schema_compiler *c, const node *n, int depth, leaf_count *seen) {
    if (depth > SCHEMA_NESTING_MAX || seen->unions > SCHEMA_PARTS_MAX)
        return schema_refuse(c, "a $ref leads to itself with nothing between"), -1;
    if (n->kind != NODE_UNION) {
        if (++seen->leaves <= SCHEMA_ALTERNATIVES_MAX) return 0;
        return schema_refuse(c, "more than %d alternatives in one place are not supported",
                             SCHEMA_ALTERNATIVES_MAX),
               -1;
    }
    seen->unions++;
    for (uint32_t i = 0; i < n->any.n; i++) {
        if (count_leaves(c, n->any.v[i], depth + 1, seen)) return -1;
    }
    return 0;
}

int schema_examine(schema_compiler *c, const node *root) {
    node_list all = {0};
    int rc = list_add(&all, root);
    for (size_t i = 0; i < all.n && rc == 0; i++) rc = list_children(&all, all.v[i]);
    if (rc) {
        engine_fail(c->err, ENGINE_ENOMEM, "out of memory for the schema");
    } else {
        for (size_t i = 0; i < all.n && rc == 0; i++) {
            leaf_count seen = {0, 0};
            rc = count_leaves(c, all.v[i], 0, &seen);
        }
        if (rc == 0) find_needs(&all);
    }
    free(all.v);
    return rc;
}
