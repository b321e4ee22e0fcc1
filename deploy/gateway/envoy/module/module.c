/* The module's entry, and the hooks that Envoy demands and our filters have no use for. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"
#include "process.h"

void complain(const char *what) { dprintf(STDERR_FILENO, "reverse-sigmoid: %s\n", what); }

bool process_only_validates(void) {
  char words[65536];
  int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t size = file < 0 ? 0 : read(file, words, sizeof words - 1);
  if (file >= 0) close(file);
  words[size > 0 ? size : 0] = 0;
  for (const char *word = words; word < words + size; word += strlen(word) + 1)
    if (!strcmp(word, "--mode=validate") ||
        (!strcmp(word, "--mode") && !strcmp(word + sizeof "--mode", "validate")))
      return true;
  return false;
}

/* Called once, when Envoy loads the library; NULL ends its start. */
HOOK const char *envoy_dynamic_module_on_program_init(void) {
  const void *needed[] = {
      envoy_dynamic_module_callback_http_get_header,
      envoy_dynamic_module_callback_http_set_header,
      envoy_dynamic_module_callback_http_get_body_size,
      envoy_dynamic_module_callback_http_get_body_chunks_size,
      envoy_dynamic_module_callback_http_get_body_chunks,
      envoy_dynamic_module_callback_http_set_dynamic_metadata_string,
      envoy_dynamic_module_callback_http_send_response,
      envoy_dynamic_module_callback_http_filter_config_define_counter,
      envoy_dynamic_module_callback_http_filter_config_increment_counter,
      envoy_dynamic_module_callback_http_filter_increment_counter,
      envoy_dynamic_module_callback_network_filter_get_remote_address,
      envoy_dynamic_module_callback_network_filter_close_with_details,
      envoy_dynamic_module_callback_network_filter_config_define_counter,
      envoy_dynamic_module_callback_network_filter_increment_counter,
  };
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
    if (!needed[i]) {
      complain("this Envoy is not 1.40, for which the gateway's module is built");
      return NULL;
    }
  return ABI_VERSION;
}

#define GO_ON(name) \
  HOOK int envoy_dynamic_module_on_##name(void) { return CONTINUE; }
#define NOTHING(name) \
  HOOK void envoy_dynamic_module_on_##name(void) {}

GO_ON(http_filter_response_body)
GO_ON(http_filter_response_trailers)
NOTHING(http_filter_stream_complete)
NOTHING(http_filter_http_callout_done)
NOTHING(http_filter_http_stream_headers)
NOTHING(http_filter_http_stream_data)
NOTHING(http_filter_http_stream_trailers)
NOTHING(http_filter_http_stream_complete)
NOTHING(http_filter_http_stream_reset)
NOTHING(http_filter_scheduled)
NOTHING(http_filter_downstream_above_write_buffer_high_watermark)
NOTHING(http_filter_downstream_below_write_buffer_low_watermark)
GO_ON(network_filter_read)
GO_ON(network_filter_write)
NOTHING(network_filter_event)
