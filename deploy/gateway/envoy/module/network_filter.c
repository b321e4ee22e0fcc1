/* A network filter that bounds the connections of one source: an IPv4 address, or an IPv6 /64.
 *
 * It counts when a connection is accepted, before TLS and before a byte is read, and until it is
 * gone. Told "connections N". Everybody whose address cannot be read is one source.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "process.h"

#define TEXT(literal) ((struct text){literal, sizeof literal - 1})
#define LISTS 4096

struct source {
  uint64_t address;  /* the upper half of an IPv6 address, or ::ffff: and an IPv4 one */
  long connections;
  struct source *next;
};

struct config {
  long most;
  size_t counter;
  pthread_mutex_t lock;
  struct source *lists[LISTS];
};

/* One connection. */
struct filter {
  struct config *config;
  uint64_t address;
  bool allowed;
};

/* Returns what stands for all addresses of one source. */
static uint64_t source_of(struct text text) {
  unsigned char bytes[16];
  static const unsigned char mapped[12] = {[10] = 0xff, 0xff};
  char address[64] = "";
  uint64_t upper;
  if (text.length >= sizeof address) return 0;
  memcpy(address, text.ptr, text.length);
  char *zone = strchr(address, '%');
  if (zone) *zone = 0;
  bool four = inet_pton(AF_INET, address, bytes + 12) == 1;
  if (!four && inet_pton(AF_INET6, address, bytes) != 1) return 0;
  if (four || !memcmp(bytes, mapped, sizeof mapped)) {
    memcpy(bytes + 4, bytes + 12, 4);
    memcpy(bytes, "\0\0\xff\xff", 4);
  }
  memcpy(&upper, bytes, sizeof upper);
  return upper;
}

/* Returns where the source's entry hangs, or will. */
static struct source **place(struct config *config, uint64_t address) {
  struct source **at = &config->lists[(address * 0x9e3779b97f4a7c15u) >> 52];
  while (*at && (*at)->address != address) at = &(*at)->next;
  return at;
}

static bool enter(struct config *config, uint64_t address) {
  pthread_mutex_lock(&config->lock);
  struct source **at = place(config, address);
  if (!*at && (*at = calloc(1, sizeof **at))) (*at)->address = address;
  bool allowed = *at && (*at)->connections < config->most;
  if (allowed) (*at)->connections++;
  pthread_mutex_unlock(&config->lock);
  return allowed;
}

static void leave(struct config *config, uint64_t address) {
  pthread_mutex_lock(&config->lock);
  struct source **at = place(config, address), *source = *at;
  if (source && --source->connections == 0) {
    *at = source->next;
    free(source);
  }
  pthread_mutex_unlock(&config->lock);
}

HOOK void *envoy_dynamic_module_on_network_filter_config_new(void *envoy, struct text name,
                                                            struct text text) {
  (void)name;
  char words[64] = "";
  static const char key[] = "connections ";
  if (text.length < sizeof words) memcpy(words, text.ptr, text.length);
  long most = strncmp(words, key, sizeof key - 1) ? 0 : atol(words + sizeof key - 1);
  if (most <= 0) {
    complain("the bound of connections is not said as this module reads it");
    return NULL;
  }
  struct config *config = calloc(1, sizeof *config);
  config->most = most;
  pthread_mutex_init(&config->lock, NULL);
  envoy_dynamic_module_callback_network_filter_config_define_counter(
      envoy, TEXT("refused_connections"), &config->counter);
  return config;
}

HOOK void envoy_dynamic_module_on_network_filter_config_destroy(struct config *config) {
  free(config);  // no connection is left that would hold a source
}

HOOK void *envoy_dynamic_module_on_network_filter_new(struct config *config, void *envoy) {
  (void)envoy;
  struct filter *filter = calloc(1, sizeof *filter);
  filter->config = config;
  return filter;
}

HOOK enum status envoy_dynamic_module_on_network_filter_new_connection(void *envoy,
                                                                      struct filter *filter) {
  struct text address = {"", 0};
  uint32_t port;
  envoy_dynamic_module_callback_network_filter_get_remote_address(envoy, &address, &port);
  filter->address = source_of(address);
  filter->allowed = enter(filter->config, filter->address);
  if (filter->allowed) return CONTINUE;
  envoy_dynamic_module_callback_network_filter_increment_counter(envoy, filter->config->counter, 1);
  envoy_dynamic_module_callback_network_filter_close_with_details(
      envoy, NO_FLUSH, TEXT("connections_of_this_source"));
  return STOP_ITERATION;
}

HOOK void envoy_dynamic_module_on_network_filter_destroy(struct filter *filter) {
  if (filter->allowed) leave(filter->config, filter->address);
  free(filter);
}
