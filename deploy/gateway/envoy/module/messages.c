/* Reads a body once, byte by byte, without a copy: a few nanoseconds a byte at most.
 *
 * Triton says an identifier again in its answer and names again in its refusals, copies parameters
 * from model to model, and makes an object of each field, however empty. So only tensors may be
 * long or many. Its JSON parser also calls itself for every bracket and runs out of stack, and it
 * makes room for all elements of a shape before it looks for their data.
 *
 * Where this reading and a parser's could differ, the text is no JSON, or the message no message,
 * and the parser stops there.
 */
#include "messages.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static size_t sum(const struct text *pieces, size_t count) {
  size_t total = 0;
  for (size_t i = 0; i < count; i++) total += pieces[i].length;
  return total;
}

#define WRONG(...) (snprintf(fault, FAULT_SIZE, __VA_ARGS__), false)
#define TOO_LONG(what) \
  WRONG("%s: more than %d bytes; only the data of tensors may be longer", what, LONGEST_TEXT)

/* ---- gRPC ---- */

struct reader {
  const struct text *piece;
  size_t at;    /* in the piece */
  size_t left;  /* of the body, in this and later pieces */
  size_t fields, elements;
};

static uint8_t next(struct reader *r) {
  while (r->at == r->piece->length) r->piece++, r->at = 0;
  r->left--;
  return (uint8_t)r->piece->ptr[r->at++];
}

static void skip(struct reader *r, size_t size) {
  r->left -= size;
  for (; size > r->piece->length - r->at; r->piece++, r->at = 0) size -= r->piece->length - r->at;
  r->at += size;
}

/* Reads a number that ends before only ``end`` bytes are left. */
static bool number(struct reader *r, size_t end, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; shift < 70 && r->left > end; shift += 7) {
    uint8_t byte = next(r);
    *value |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
    if (!(byte & 0x80)) return true;
  }
  return false;
}

enum level { REQUEST, TENSOR, CONTENTS };
enum { INPUTS = 5, RAW_CONTENTS = 7, TENSOR_CONTENTS = 5 };  /* numbers of their fields */

static const char *name_of(enum level level, uint64_t field) {
  static const char *const names[2][8] = {
      {0, "model_name", "model_version", "id", "parameters", 0, "outputs", 0},
      {0, "an input's name", "an input's datatype", "an input's shape", "an input's parameters"}};
  const char *name = field < 8 ? names[level][field] : NULL;
  return name ? name : "a field";
}

/* Looks at fields until ``end`` bytes are left; other requests have no field 5 or 7. */
static bool good_fields(struct reader *r, size_t end, enum level level, char *fault) {
  while (r->left > end) {
    uint64_t tag, size = 0;
    if (!number(r, end, &tag) || tag > UINT32_MAX) return WRONG("the message cannot be read");
    uint64_t field = tag >> 3, kind = tag & 7;
    bool text = kind == 2;
    if (level == CONTENTS ? ++r->elements > MOST_ELEMENTS : ++r->fields > MOST_FIELDS)
      return WRONG("more than %d %s", level == CONTENTS ? MOST_ELEMENTS : MOST_FIELDS,
                   level == CONTENTS ? "elements; send raw_input_contents" : "fields");
    if (kind == 0) {
      if (!number(r, end, &size)) return WRONG("the message cannot be read");
      continue;
    }
    if (kind == 1 || kind == 5) size = kind == 1 ? 8 : 4;
    else if (!text || !number(r, end, &size)) return WRONG("the message cannot be read");
    if (size > r->left - end) return WRONG("the message cannot be read");
    bool inputs = text && level == REQUEST && field == INPUTS;
    bool contents = text && level == TENSOR && field == TENSOR_CONTENTS;
    if (inputs || contents) {
      if (!good_fields(r, r->left - size, inputs ? TENSOR : CONTENTS, fault)) return false;
      continue;
    }
    bool may_be_long = level == CONTENTS || (level == REQUEST && field == RAW_CONTENTS);
    if (size > LONGEST_TEXT && !may_be_long) return TOO_LONG(name_of(level, field));
    skip(r, size);
  }
  return true;
}

bool good_message(const struct text *pieces, size_t count, char *fault) {
  struct reader reader = {.piece = pieces, .left = sum(pieces, count)};
  if (!reader.left) return WRONG("the request has no message");
  // Triton begins at the end of the first message: nothing may come behind it, or it would run
  // while the rest is on its way.
  if (reader.left < 5) return WRONG("expected exactly one message");
  bool packed = next(&reader);
  size_t size = 0;
  for (int i = 0; i < 4; i++) size = size << 8 | next(&reader);
  if (size != reader.left) return WRONG("expected exactly one message");
  if (packed) return WRONG("compressed messages are not taken; send them as they are");
  return good_fields(&reader, 0, REQUEST, fault);
}

/* ---- JSON ---- */

struct json {
  size_t sent;
  enum { OUTSIDE, STRING, ESCAPE, CODE } at;
  unsigned depth;
  uint64_t objects;  /* for each open bracket whether it is a brace, the innermost lowest */
  size_t length, fields, shapes;
  bool beside;  /* the string is a name or a text of an object, not data */
  char start[5], code[4];
  unsigned code_length;
  /* Of every "shape", wherever it stands: a reader may take the first or the last of two. */
  enum { NO_SHAPE, NAMED, EXPECTED, LIST } shape;
  size_t shape_length;
  bool in_size;
  double size, elements;
};

static bool is_space(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

/* In a string. */
static bool good_letter(struct json *j, uint8_t byte, char *fault) {
  if (j->at == CODE) {
    j->code[j->code_length++] = (char)byte;
    if (j->code_length == sizeof j->code) {
      j->at = STRING;
      // Nobody spells the letters of "shape" so; a reader would take it for that all the same.
      static const char letters[][5] = {"0073", "0068", "0061", "0070", "0065"};
      for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        if (!memcmp(j->code, letters[i], sizeof j->code))
          return WRONG("letters are to be sent as they are, not as \\u0061 and the like");
    }
  } else if (j->at == ESCAPE) {
    j->at = byte == 'u' ? CODE : STRING;
    j->code_length = 0;
  } else if (byte == '"') {
    j->at = OUTSIDE;
    if (j->length == sizeof j->start && !memcmp(j->start, "shape", sizeof j->start))
      j->shape = NAMED;
    return true;
  } else if (byte == '\\') {
    j->at = ESCAPE;
  }
  if (j->length < sizeof j->start) j->start[j->length] = (char)byte;
  if (++j->length > LONGEST_TEXT && j->beside) return TOO_LONG("a name or text");
  return true;
}

/* Between the name of a shape and the end of its list; ``taken`` says whether it is a part. */
static bool good_shape(struct json *j, uint8_t byte, bool *taken, char *fault) {
  bool digit = byte >= '0' && byte <= '9', space = is_space(byte);
  *taken = true;
  if (j->shape == NAMED) {
    if (byte == ':') {
      j->shape = EXPECTED;
      if (++j->shapes > MOST_SHAPES) return WRONG("more than %d shapes", MOST_SHAPES);
    } else if (!space) {  // it was no name
      j->shape = NO_SHAPE;
      *taken = false;
    }
    return true;
  }
  if (j->shape == EXPECTED) {
    *taken = space;
    if (space) return true;
    if (byte != '[') return WRONG("shape: expected a list of whole numbers");
    j->shape = LIST;
    j->shape_length = 0;
    j->in_size = false;
    j->elements = 1;
    return true;
  }
  if (digit) {
    j->size = (j->in_size ? j->size * 10 : 0) + (byte - '0');
  } else if (j->in_size) {
    j->elements *= j->size;
  }
  j->in_size = digit;
  if (byte == ']') {
    j->shape = NO_SHAPE;
    *taken = false;
    if (!(j->elements <= (double)j->sent))
      return WRONG("a shape has more elements than bytes were sent");
  } else if ((!digit && !space && byte != ',') || ++j->shape_length > LONGEST_SHAPE) {
    return WRONG("shape: expected a list of whole numbers");
  }
  return true;
}

static bool good_byte(struct json *j, uint8_t byte, char *fault) {
  if (j->at != OUTSIDE) return good_letter(j, byte, fault);
  if (j->shape != NO_SHAPE) {
    bool taken;
    if (!good_shape(j, byte, &taken, fault)) return false;
    if (taken) return true;
  }
  switch (byte) {
  case '"':
    j->at = STRING;
    j->length = 0;
    j->beside = !j->depth || j->objects & 1;
    if (j->beside && ++j->fields > MOST_FIELDS)
      return WRONG("more than %d names and texts", MOST_FIELDS);
    return true;
  case '[': case '{':
    j->objects = j->objects << 1 | (byte == '{');
    if (++j->depth > DEEPEST) return WRONG("the JSON is nested deeper than %d levels", DEEPEST);
    return true;
  case ']': case '}':
    j->objects >>= 1;
    if (j->depth) j->depth--;
    return true;
  default:
    return true;
  }
}

bool good_json(const struct text *pieces, size_t count, size_t size, char *fault) {
  static const bool bracket[256] = {['"'] = 1, ['['] = 1, [']'] = 1, ['{'] = 1, ['}'] = 1};
  static const bool end_of_text[256] = {['"'] = 1, ['\\'] = 1};
  struct json json = {.sent = sum(pieces, count)};
  if (size > (size_t)MOST_JSON_MIB << 20)
    return WRONG("more than %d MiB of JSON; send large tensors as binary data", MOST_JSON_MIB);
  for (; size && count; pieces++, count--) {
    const uint8_t *byte = (const uint8_t *)pieces->ptr;
    const uint8_t *end = byte + (pieces->length < size ? pieces->length : size);
    size -= (size_t)(end - byte);
    for (; byte < end; byte++) {
      if (json.at == OUTSIDE && json.shape == NO_SHAPE && !bracket[*byte]) continue;
      // The length of data does not matter beyond that of "shape".
      bool data = json.at == STRING && !json.beside && json.length > sizeof json.start;
      if (data && !end_of_text[*byte]) continue;
      if (!good_byte(&json, *byte, fault)) return false;
    }
  }
  return json.shape < EXPECTED || WRONG("shape: expected a list of whole numbers");
}
