/* An HTTP filter that bounds what one client may take: tokens, requests at once, bytes of bodies.
 *
 * It stands behind the check of the API key, whose filter puts the client's name into a header.
 * The one named ``message`` stands behind the filter that waits for whole bodies: it counts nothing
 * and looks at what they say. What a filter is told, one line each:
 *
 *   file PATH              where budgets are kept; in memory without it
 *   cost N                 tokens that a request takes from each bucket of its client
 *   requests N TEXT        that a client may have at once, and what the next one is told; one that
 *                          it abandons counts for a second or two more, as the model works on it
 *   bytes N TEXT           of bodies that a client may have sent and not been answered
 *   client NAME            begins a client; the lines below are of this one
 *   rate TOKENS SECONDS    a bucket
 *   budget TOKENS SECONDS  another
 *
 * A name that it was not told is refused, so a mistake in the configuration shuts the door.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "budgets.h"
#include "messages.h"
#include "process.h"

#define CLIENT_HEADER "x-client-id"
#define NONE ((size_t)-1)
#define COUNT_BITS 24  /* of a second's requests; the other bits say which second */
#define TEXT(literal) ((struct text){literal, sizeof literal - 1})

enum reason { RATE, BUDGET, REQUESTS, BYTES, MESSAGE, UNKNOWN, REASONS };
static const struct text reasons[REASONS] = {
    TEXT("rate"), TEXT("budget"), TEXT("requests_at_once"), TEXT("bytes_at_once"),
    TEXT("message"), TEXT("unknown_client")};
/* What a refusal is over HTTP and gRPC: RESOURCE_EXHAUSTED, INVALID_ARGUMENT, PERMISSION_DENIED. */
static const struct { uint32_t http; const char *grpc; } statuses[REASONS] = {
    {429, "8"}, {429, "8"}, {429, "8"}, {429, "8"}, {400, "3"}, {403, "7"}};

struct client {
  char name[NAME_SIZE];
  size_t buckets[2];  /* by reason, RATE and BUDGET; NONE without one */
  _Atomic int64_t requests, bytes;
  _Atomic uint64_t abandoned[2];  /* of even and odd seconds: which second, and how many */
};

struct config {
  struct budgets *budgets;
  struct wanted *wanted;
  size_t clients_count, wanted_count, counter;
  struct client *clients;  /* in the order of their names */
  int64_t cost, most[REASONS];  /* by reason, REQUESTS and BYTES; 0 for no bound */
  char *said[REASONS];          /* by the same; replies have words of their own for others */
  bool looks;                   /* at messages, and counts nothing */
};

/* One request. */
struct filter {
  struct config *config;
  struct client *client;  /* NULL until it is known and counted */
  int64_t bytes;
  bool refused, limited, seen, whole, answered;
  struct verdict verdict;
  int64_t limit;
};

static int by_name(const void *one, const void *other) {
  return strcmp(((const struct client *)one)->name, ((const struct client *)other)->name);
}

static void add_bucket(struct config *config, enum reason which, int64_t tokens, int64_t period_s) {
  struct client *client = &config->clients[config->clients_count - 1];
  struct wanted *wanted = &config->wanted[config->wanted_count];
  client->buckets[which] = config->wanted_count++;
  snprintf(wanted->name, NAME_SIZE, "%s %.100s", reasons[which].ptr, client->name);
  wanted->tokens = tokens;
  wanted->period_s = period_s;
}

static void add_bound(struct config *config, enum reason which, int64_t most, const char *text) {
  free(config->said[which]);
  config->most[which] = most;
  config->said[which] = strdup(text);
}

/* Reads the lines; returns false at one that it does not know. */
static bool parse(struct config *config, char *lines, const char **file) {
  for (char *rest, *line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    char *end, *word = line, *value = strchr(line, ' ');
    if (!value) return false;
    *value++ = 0;
    bool of_client = !strcmp(word, "rate") || !strcmp(word, "budget");
    int64_t first = strtoll(value, &end, 10), second = of_client ? strtoll(end, &end, 10) : 1;
    if (!strcmp(word, "file")) *file = value;
    else if (!strcmp(word, "client") && strlen(value) <= 100) {
      struct client *client = &config->clients[config->clients_count++];
      strcpy(client->name, value);
      client->buckets[RATE] = client->buckets[BUDGET] = NONE;
    } else if (first <= 0 || second <= 0) return false;
    else if (!strcmp(word, "requests") && *end == ' ') add_bound(config, REQUESTS, first, end + 1);
    else if (!strcmp(word, "bytes") && *end == ' ') add_bound(config, BYTES, first, end + 1);
    else if (*end) return false;
    else if (!strcmp(word, "cost")) config->cost = first;
    else if (of_client && config->clients_count)
      add_bucket(config, *word == 'r' ? RATE : BUDGET, first, second);
    else return false;
  }
  qsort(config->clients, config->clients_count, sizeof *config->clients, by_name);
  return true;
}

/* A counter of refusals for every client and reason, from 0 on. */
static void count_refusals(void *envoy, struct config *config) {
  struct text labels[2] = {TEXT("client"), TEXT("reason")};
  envoy_dynamic_module_callback_http_filter_config_define_counter(
      envoy, TEXT("refused"), labels, 2, &config->counter);
  for (size_t i = 0; i < config->clients_count; i++) {
    struct client *client = &config->clients[i];
    for (enum reason reason = RATE; reason <= MESSAGE; reason++) {
      bool can = reason <= BUDGET ? client->buckets[reason] != NONE
               : reason == MESSAGE ? config->looks : config->most[reason] > 0;
      struct text values[2] = {{client->name, strlen(client->name)}, reasons[reason]};
      if (can)
        envoy_dynamic_module_callback_http_filter_config_increment_counter(
            envoy, config->counter, values, 2, 0);
    }
  }
}

HOOK void envoy_dynamic_module_on_http_filter_config_destroy(struct config *config) {
  if (!config) return;
  budgets_close(config->budgets);
  for (size_t i = 0; i < REASONS; i++) free(config->said[i]);
  free(config->wanted);
  free(config->clients);
  free(config);
}

HOOK void *envoy_dynamic_module_on_http_filter_config_new(void *envoy, struct text name,
                                                         struct text text) {
  static const struct text message = TEXT("message");
  char error[ERROR_SIZE] = "its configuration has a line that this module does not know";
  const char *file = NULL;
  char *lines = strndup(text.ptr, text.length);
  struct config *config = calloc(1, sizeof *config);
  config->looks = name.length == message.length && !memcmp(name.ptr, message.ptr, name.length);
  size_t most = 1;  // lines, so clients and buckets
  for (size_t i = 0; i < text.length; i++) most += text.ptr[i] == '\n';
  config->clients = calloc(most, sizeof *config->clients);
  config->wanted = calloc(most, sizeof *config->wanted);
  struct moment now = moment_now();
  bool good = parse(config, lines, &file);
  if (good)
    config->budgets = budgets_open(file, config->wanted, config->wanted_count, &now,
                                   process_only_validates(), error);
  free(lines);
  if (good && config->budgets) {
    count_refusals(envoy, config);
    return config;
  }
  complain(error);
  envoy_dynamic_module_on_http_filter_config_destroy(config);
  return NULL;
}

HOOK void *envoy_dynamic_module_on_http_filter_new(struct config *config, void *envoy) {
  (void)envoy;
  struct filter *filter = calloc(1, sizeof *filter);
  filter->config = config;
  return filter;
}

static uint64_t second_of(struct moment now) { return (uint64_t)now.since_boot_ns / 1000000000; }

static void abandon(struct client *client) {
  uint64_t second = second_of(moment_now()), after;
  _Atomic uint64_t *slot = &client->abandoned[second % 2];
  uint64_t before = atomic_load(slot);
  do
    after = before >> COUNT_BITS == second ? before + 1 : (second << COUNT_BITS) + 1;
  while (!atomic_compare_exchange_weak(slot, &before, after));
}

/* Returns how many requests a client abandoned in this second and the one before. */
static int64_t abandoned(struct client *client, uint64_t second) {
  uint64_t sum = 0;
  for (size_t i = 0; i < 2; i++) {
    uint64_t slot = atomic_load(&client->abandoned[i]);
    if ((slot >> COUNT_BITS) + 1 >= second) sum += slot % (UINT64_C(1) << COUNT_BITS);
  }
  return (int64_t)sum;
}

HOOK void envoy_dynamic_module_on_http_filter_destroy(struct filter *filter) {
  if (filter->client && !filter->config->looks) {
    if (filter->whole && !filter->answered && !filter->refused) abandon(filter->client);
    atomic_fetch_sub(&filter->client->requests, 1);
    atomic_fetch_sub(&filter->client->bytes, filter->bytes);
  }
  free(filter);
}

/* The numbers of a bucket's headers, and room for their digits. */
struct standing {
  struct header headers[4];
  char digits[3][24];
};

static void describe(const struct filter *filter, struct standing *standing) {
  static const struct text names[3] = {
      TEXT("x-ratelimit-limit"), TEXT("x-ratelimit-remaining"), TEXT("x-ratelimit-reset")};
  const int64_t values[3] = {filter->limit, filter->verdict.remaining, filter->verdict.wait_s};
  for (size_t i = 0; i < 3; i++) {
    int length = snprintf(standing->digits[i], sizeof standing->digits[i], "%lld",
                          (long long)values[i]);
    standing->headers[i] = (struct header){names[i].ptr, names[i].length, standing->digits[i],
                                           (size_t)length};
  }
}

static bool get(void *envoy, struct text name, struct text *value) {
  return envoy_dynamic_module_callback_http_get_header(envoy, REQUEST_HEADER, name, value, 0, NULL);
}

/* Answers in Triton's place; ``replies`` in Python reads the words, or has its own without any. */
static void refuse(void *envoy, struct filter *filter, enum reason reason, const char *said) {
  static const struct text grpc = TEXT("application/grpc");
  struct text labels[2] = {TEXT("-"), reasons[reason]}, type;
  struct standing standing;
  size_t headers = 0;
  filter->refused = true;
  if (filter->client) labels[0] = (struct text){filter->client->name, strlen(filter->client->name)};
  envoy_dynamic_module_callback_http_filter_increment_counter(envoy, filter->config->counter,
                                                              labels, 2, 1);
  if (said)
    envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        envoy, TEXT("gateway.refused"), TEXT("because"), (struct text){said, strlen(said)});
  if (reason == RATE || reason == BUDGET) {
    describe(filter, &standing);
    headers = 3;
  }
  // Without it Envoy would tell a gRPC client OK, or a status that says less.
  if (get(envoy, TEXT("content-type"), &type) && type.length >= grpc.length &&
      !memcmp(type.ptr, grpc.ptr, grpc.length))
    standing.headers[headers++] =
        (struct header){"grpc-status", 11, statuses[reason].grpc, 1};
  envoy_dynamic_module_callback_http_send_response(
      envoy, statuses[reason].http, standing.headers, headers, TEXT(""), reasons[reason]);
}

static struct client *find(struct config *config, void *envoy) {
  struct text name;
  struct client key;
  if (!get(envoy, TEXT(CLIENT_HEADER), &name) || name.length >= NAME_SIZE) return NULL;
  memcpy(key.name, name.ptr, name.length);
  key.name[name.length] = 0;
  return bsearch(&key, config->clients, config->clients_count, sizeof key, by_name);
}

/* Returns whether the first bytes that are JSON were told, as few as there are. */
static bool json_size(void *envoy, size_t sent, size_t *size, char *fault) {
  struct text value;
  size_t count = 0;
  *size = sent;
  envoy_dynamic_module_callback_http_get_header(
      envoy, REQUEST_HEADER, TEXT("inference-header-content-length"), &value, 0, &count);
  if (!count) return true;
  bool good = count == 1 && value.length > 0 && value.length <= 10;
  *size = 0;
  for (size_t i = 0; good && i < value.length; i++) {
    good = value.ptr[i] >= '0' && value.ptr[i] <= '9';
    *size = *size * 10 + (size_t)(value.ptr[i] - '0');
  }
  if (good && *size <= sent) return true;
  snprintf(fault, FAULT_SIZE,
           "inference-header-content-length: expected how many of the %zu bytes sent are JSON", sent);
  return false;
}

/* Looks at a whole body, which comes at once; returns whether it may pass. */
static bool look(void *envoy, struct filter *filter, bool trailers) {
  static const struct text http = TEXT("/v2/");
  char fault[FAULT_SIZE] = "the body came in pieces";
  struct text path = {0};
  size_t size, count = envoy_dynamic_module_callback_http_get_body_chunks_size(
      envoy, RECEIVED_REQUEST_BODY);
  size_t sent = envoy_dynamic_module_callback_http_get_body_size(envoy, RECEIVED_REQUEST_BODY);
  struct text *pieces = calloc(count + 1, sizeof *pieces);
  bool good = !filter->seen && pieces;
  filter->seen = true;
  if (good && count)
    good = envoy_dynamic_module_callback_http_get_body_chunks(envoy, RECEIVED_REQUEST_BODY, pieces);
  get(envoy, TEXT(":path"), &path);
  if (good && path.length >= http.length && !memcmp(path.ptr, http.ptr, http.length)) {
    good = json_size(envoy, sent, &size, fault) && good_json(pieces, count, size, fault);
  } else if (good) {
    good = good_message(pieces, count, fault);
    if (good && trailers) {  // Triton would begin before they have come
      strcpy(fault, "trailers are not taken");
      good = false;
    }
  }
  free(pieces);
  if (good)
    envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        envoy, TEXT("gateway.message"), TEXT("seen"), TEXT("yes"));
  else
    refuse(envoy, filter, MESSAGE, fault);
  return good;
}

HOOK enum status envoy_dynamic_module_on_http_filter_request_trailers(void *envoy,
                                                                      struct filter *filter) {
  filter->whole = true;
  if (!filter->config->looks || filter->seen) return CONTINUE;
  return look(envoy, filter, true) ? CONTINUE : STOP_ITERATION;
}

HOOK enum status envoy_dynamic_module_on_http_filter_request_headers(
    void *envoy, struct filter *filter, bool end) {
  struct config *config = filter->config;
  struct client *client = find(config, envoy);
  if (config->looks) {
    filter->client = client;  // none where no key is asked for
    // Until the body is there, nobody behind this filter decides.
    return end && look(envoy, filter, false) ? CONTINUE : STOP_ITERATION;
  }
  if (!client) {
    refuse(envoy, filter, UNKNOWN, NULL);
    return STOP_ITERATION;
  }
  filter->client = client;
  filter->whole = end;
  struct moment now = moment_now();
  int64_t before = atomic_fetch_add(&client->requests, 1) +
                   abandoned(client, second_of(now));
  if (config->most[REQUESTS] && before >= config->most[REQUESTS]) {
    refuse(envoy, filter, REQUESTS, config->said[REQUESTS]);
    return STOP_ITERATION;
  }
  for (enum reason which = RATE; which <= BUDGET; which++) {
    size_t bucket = client->buckets[which];
    if (bucket == NONE) continue;
    filter->verdict = budgets_take(config->budgets, bucket, config->cost, &now);
    filter->limited = true;
    filter->limit = config->wanted[bucket].tokens;
    if (!filter->verdict.granted) {
      refuse(envoy, filter, which, NULL);
      return STOP_ITERATION;
    }
  }
  return CONTINUE;
}

HOOK enum body_status envoy_dynamic_module_on_http_filter_request_body(
    void *envoy, struct filter *filter, bool end) {
  if (filter->config->looks)
    return look(envoy, filter, !end) ? CONTINUE_BODY : STOP_BODY_NO_BUFFER;
  filter->whole = end;
  if (filter->refused || !filter->config->most[BYTES]) return CONTINUE_BODY;
  int64_t more = (int64_t)envoy_dynamic_module_callback_http_get_body_size(
      envoy, RECEIVED_REQUEST_BODY);
  filter->bytes += more;
  int64_t before = atomic_fetch_add(&filter->client->bytes, more);
  if (before + more <= filter->config->most[BYTES]) return CONTINUE_BODY;
  refuse(envoy, filter, BYTES, filter->config->said[BYTES]);
  return STOP_BODY_NO_BUFFER;
}

/* Tells the client of an answered request how it stands. */
HOOK enum status envoy_dynamic_module_on_http_filter_response_headers(
    void *envoy, struct filter *filter, bool end) {
  (void)end;
  struct standing standing;
  filter->answered = true;
  if (!filter->limited || filter->refused) return CONTINUE;
  describe(filter, &standing);
  for (size_t i = 0; i < 3; i++) {
    struct header *header = &standing.headers[i];
    envoy_dynamic_module_callback_http_set_header(
        envoy, RESPONSE_HEADER, (struct text){header->key, header->key_length},
        (struct text){header->value, header->value_length});
  }
  return CONTINUE;
}
