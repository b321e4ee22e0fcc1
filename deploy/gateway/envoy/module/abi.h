/* What of Envoy's dynamic module ABI our filters use: version v0.2.0, of Envoy 1.40.
 *
 * Declared anew rather than copied: Envoy's own header has 20,000 lines. The shapes are those of
 * source/extensions/dynamic_modules/abi/abi.h (Apache License 2.0, the Envoy project's authors).
 * Envoy's functions are weak: those that an older Envoy lacks are null here, and the module
 * refuses to start instead of crashing at the first request.
 */
#ifndef REVERSE_SIGMOID_ABI_H
#define REVERSE_SIGMOID_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ABI_VERSION "v0.2.0"
#define OF_ENVOY extern __attribute__((weak))
#define HOOK __attribute__((visibility("default")))

struct text {  /* envoy_dynamic_module_type_envoy_buffer and ..._module_buffer */
  const char *ptr;
  size_t length;
};

struct header {  /* envoy_dynamic_module_type_module_http_header */
  const char *key;
  size_t key_length;
  const char *value;
  size_t value_length;
};

enum header_type { REQUEST_HEADER, REQUEST_TRAILER, RESPONSE_HEADER, RESPONSE_TRAILER };
enum body_type { RECEIVED_REQUEST_BODY };
enum status { CONTINUE, STOP_ITERATION };
enum body_status { CONTINUE_BODY, STOP_BODY_NO_BUFFER = 3 };
enum close_type { FLUSH_WRITE, NO_FLUSH };

/* Of an HTTP filter. */
OF_ENVOY bool envoy_dynamic_module_callback_http_get_header(
    void *filter, enum header_type type, struct text key, struct text *value, size_t index,
    size_t *count);
OF_ENVOY bool envoy_dynamic_module_callback_http_set_header(
    void *filter, enum header_type type, struct text key, struct text value);
OF_ENVOY size_t envoy_dynamic_module_callback_http_get_body_size(void *filter, enum body_type type);
OF_ENVOY size_t envoy_dynamic_module_callback_http_get_body_chunks_size(void *filter,
                                                                        enum body_type type);
OF_ENVOY bool envoy_dynamic_module_callback_http_get_body_chunks(
    void *filter, enum body_type type, struct text *chunks);
OF_ENVOY void envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
    void *filter, struct text name_space, struct text key, struct text value);
OF_ENVOY void envoy_dynamic_module_callback_http_send_response(
    void *filter, uint32_t status, struct header *headers, size_t count, struct text body,
    struct text details);
OF_ENVOY int envoy_dynamic_module_callback_http_filter_config_define_counter(
    void *config, struct text name, struct text *labels, size_t count, size_t *id);
OF_ENVOY int envoy_dynamic_module_callback_http_filter_config_increment_counter(
    void *config, size_t id, struct text *labels, size_t count, uint64_t value);
OF_ENVOY int envoy_dynamic_module_callback_http_filter_increment_counter(
    void *filter, size_t id, struct text *labels, size_t count, uint64_t value);

/* Of a network filter. */
OF_ENVOY bool envoy_dynamic_module_callback_network_filter_get_remote_address(
    void *filter, struct text *address, uint32_t *port);
OF_ENVOY void envoy_dynamic_module_callback_network_filter_close_with_details(
    void *filter, enum close_type type, struct text details);
OF_ENVOY int envoy_dynamic_module_callback_network_filter_config_define_counter(
    void *config, struct text name, size_t *id);
OF_ENVOY int envoy_dynamic_module_callback_network_filter_increment_counter(
    void *filter, size_t id, uint64_t value);

#endif
