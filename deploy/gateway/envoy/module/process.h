/* What the filters want to know of the process that they are in. */
#ifndef REVERSE_SIGMOID_PROCESS_H
#define REVERSE_SIGMOID_PROCESS_H

#include <stdbool.h>

/* Returns whether Envoy was started as ``--mode validate``: then nothing may be written. */
bool process_only_validates(void);

/* Writes a line to standard error, which Envoy's own log goes to. */
void complain(const char *what);

#endif
