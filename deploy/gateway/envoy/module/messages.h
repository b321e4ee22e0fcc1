/* What a request says beside its tensors: bounded, so that Triton neither dies of it nor repeats
 * megabytes of it. */
#ifndef REVERSE_SIGMOID_MESSAGES_H
#define REVERSE_SIGMOID_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>

#include "abi.h"

#define MESSAGES_API __attribute__((visibility("default")))
#define FAULT_SIZE 160

#define DEEPEST 64  /* brackets open at once; a tensor of eight dimensions needs a dozen */
#define LONGEST_TEXT 1024       /* bytes of a name, an identifier, a parameter */
#define MOST_FIELDS 65536       /* beside what tensors hold: hundreds of inputs have thousands */
#define MOST_ELEMENTS 1048576   /* strings and single numbers in the contents of tensors */
#define MOST_SHAPES 4096
#define LONGEST_SHAPE 1000  /* bytes between its brackets */
#define MOST_JSON_MIB 64

/* Returns whether a body in pieces is exactly one gRPC message with nothing too long in it, or
 * says in ``fault``, of FAULT_SIZE bytes, what is wrong. */
MESSAGES_API bool good_message(const struct text *pieces, size_t count, char *fault);

/* The same of the first ``size`` bytes of a body as JSON; the rest is binary. */
MESSAGES_API bool good_json(const struct text *pieces, size_t count, size_t size, char *fault);

#endif
