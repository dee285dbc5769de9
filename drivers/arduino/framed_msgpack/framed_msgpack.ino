/*
 * The far end of the driver "framed-msgpack": says its points twice a second, obeys what it is told.
 *
 *   [buses.controller]
 *   kind = "serial"
 *   port = "/dev/serial/by-id/..."
 *   baud = 115200
 *
 *   [devices.controller]
 *   driver = "framed-msgpack"
 *   bus = "controller"
 *   [devices.controller.points]
 *   analog  = { unit = "V" }
 *   uptime  = { unit = "s", type = "integer" }
 *   lamp    = { type = "boolean", write = true, safe = false }
 *   dimmer  = { write = true, minimum = 0, maximum = 1, safe = 0 }
 *
 * A frame is a msgpack map and its CRC-16, made free of zeros by COBS, and a zero; or, with `framing = "slip"`
 * and SLIP 1 below, escaped by SLIP and ended by 0xC0. Nothing here waits, so that loop() goes round whatever
 * the line does. Add a point: say it in sayPoints(), obey it in setPoint().
 */

#ifndef SLIP
#define SLIP 0
#endif
const byte END = SLIP ? 0xC0 : 0;
const byte ESCAPE = 0xDB, ESCAPED_END = 0xDC, ESCAPED_ESCAPE = 0xDD;

const unsigned long BAUD = 115200;
const unsigned long EVERY_MS = 500;
/* Nothing heard for so long: outputs go to safe. 0: they stay, as the host may have nothing to say. */
const unsigned long SILENT_MS = 0;
const float REFERENCE_V = 5.0;
const int STEPS = 1024;

const int LAMP_PIN = LED_BUILTIN;
const int DIMMER_PIN = 3;

bool lamp = false;
float dimmer = 0;
unsigned long saidMs = 0;
unsigned long heardMs = 0;

/* --- out: a map is written into `out`, then sent as one frame ------------------------------------------- */

const int OUT_MAX = 200; /* below 254, so that one COBS length byte is enough for a run */
byte out[OUT_MAX];
int outSize = 0;

void put(byte value) {
  if (outSize < OUT_MAX) out[outSize++] = value;
}

void putLong(byte kind, unsigned long value) {
  put(kind);
  for (int shift = 24; shift >= 0; shift -= 8) put(value >> shift);
}

void putName(const char *name) {
  put(0xA0 | strlen(name)); /* up to 31 letters */
  while (*name) put(*name++);
}

void sayBool(const char *name, bool value) {
  putName(name);
  put(value ? 0xC3 : 0xC2);
}

void sayCount(const char *name, unsigned long value) {
  putName(name);
  putLong(0xCE, value);
}

void sayNumber(const char *name, float value) {
  unsigned long bits = 0;
  memcpy(&bits, &value, 4); /* float is 4 bytes on every board */
  putName(name);
  putLong(0xCA, bits);
}

unsigned int crc16(const byte *data, int size) {
  unsigned int crc = 0xFFFF;
  while (size-- > 0) {
    crc ^= (unsigned int)*data++ << 8;
    for (int bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1) & 0xFFFF;
  }
  return crc;
}

void beginMap(int points) {
  outSize = 0;
  put(0x80 | points); /* up to 15 */
}

void sendSlip() {
  for (int at = 0; at < outSize; at++) {
    bool special = out[at] == END || out[at] == ESCAPE;
    if (special) Serial.write(ESCAPE);
    Serial.write(special ? (out[at] == END ? ESCAPED_END : ESCAPED_ESCAPE) : out[at]);
  }
}

void sendCobs() {
  int start = 0;
  for (int at = 0; at <= outSize; at++) {
    if (at == outSize || out[at] == 0) {
      Serial.write((byte)(at - start + 1));
      Serial.write(out + start, at - start);
      start = at + 1;
    }
  }
}

void sendMap() {
  if (outSize > OUT_MAX - 2) return; /* too long: better nothing than half of it */
  unsigned int crc = crc16(out, outSize);
  put(crc >> 8);
  put(crc & 0xFF);
  if (SLIP) sendSlip(); else sendCobs();
  Serial.write(END);
}

/* --- in: bytes until the end of a frame, then the map in them ------------------------------------------- */

const int IN_MAX = 200;
byte in[IN_MAX];
int inSize = 0;

/* Each takes its framing away in place. Returns the size of what was framed, -1 for what is no frame. */
int uncobs(byte *data, int size) {
  int from = 0, to = 0;
  while (from < size) {
    int run = data[from++];
    if (run == 0 || from + run - 1 > size) return -1;
    for (int left = run - 1; left > 0; left--) data[to++] = data[from++];
    if (run < 255 && from < size) data[to++] = 0;
  }
  return to;
}

int unslip(byte *data, int size) {
  int to = 0;
  for (int from = 0; from < size; from++) {
    byte next = data[from];
    if (next == ESCAPE) {
      if (++from == size || (data[from] != ESCAPED_END && data[from] != ESCAPED_ESCAPE)) return -1;
      next = data[from] == ESCAPED_END ? END : ESCAPE;
    }
    data[to++] = next;
  }
  return to;
}

/* Returns the payload's size without its CRC, -1 for what is no frame. */
int unframe(byte *data, int size) {
  int to = SLIP ? unslip(data, size) : uncobs(data, size);
  if (to < 3) return -1;
  unsigned int crc = (unsigned int)data[to - 2] << 8 | data[to - 1];
  return crc16(data, to - 2) == crc ? to - 2 : -1;
}

/* One number or truth value of msgpack. Returns the bytes that it took, 0 for any other kind. */
int takeValue(const byte *data, int size, float *value) {
  if (size < 1) return 0;
  byte kind = data[0];
  if (kind < 0x80) { *value = kind; return 1; }
  if (kind >= 0xE0) { *value = (int)kind - 256; return 1; }
  if (kind == 0xC2 || kind == 0xC3) { *value = kind == 0xC3; return 1; }
  int bytes = 0;
  if (kind == 0xCC || kind == 0xD0) bytes = 1;
  if (kind == 0xCD || kind == 0xD1) bytes = 2;
  if (kind == 0xCE || kind == 0xD2 || kind == 0xCA) bytes = 4;
  if (kind == 0xCB || kind == 0xCF || kind == 0xD3) bytes = 8;
  if (bytes == 0 || size < 1 + bytes) return 0;
  if (kind == 0xCB) {
    /* double: many boards have none of 8 bytes, so it is taken apart */
    int exponent = ((data[1] & 0x7F) << 4 | data[2] >> 4) - 1023;
    float fraction = exponent > -1023 ? 1 : 0;
    float weight = 0.0625;
    for (int at = 2; at <= 8; at++) {
      fraction += (at == 2 ? data[at] & 0x0F : data[at]) * weight;
      weight /= 256;
    }
    *value = ldexp(fraction, exponent) * (data[1] & 0x80 ? -1 : 1);
    return 9;
  }
  if (kind == 0xCA) {
    unsigned long bits = 0;
    for (int at = 1; at <= 4; at++) bits = bits << 8 | data[at];
    memcpy(value, &bits, 4);
    return 5;
  }
  float number = kind >= 0xD0 ? (float)(signed char)data[1] : (float)data[1];
  for (int at = 2; at <= bytes; at++) number = number * 256 + data[at];
  *value = number;
  return 1 + bytes;
}

bool named(const byte *name, int size, const char *wanted) {
  return (int)strlen(wanted) == size && memcmp(name, wanted, size) == 0;
}

void apply() {
  digitalWrite(LAMP_PIN, lamp ? HIGH : LOW);
  analogWrite(DIMMER_PIN, (int)(dimmer * 255 + 0.5));
}

void setPoint(const byte *name, int size, float value) {
  if (named(name, size, "lamp")) lamp = value != 0;
  if (named(name, size, "dimmer")) dimmer = value < 0 ? 0 : value > 1 ? 1 : value;
}

void obey(const byte *data, int size) {
  if (size < 1 || (data[0] & 0xF0) != 0x80) return;
  int at = 1;
  for (int points = data[0] & 0x0F; points > 0; points--) {
    int nameSize = at < size && (data[at] & 0xE0) == 0xA0 ? data[at] & 0x1F : -1;
    if (nameSize < 0 || at + 1 + nameSize > size) break;
    const byte *name = data + at + 1;
    at += 1 + nameSize;
    float value = 0;
    int took = takeValue(data + at, size - at, &value);
    if (took == 0) break; /* what came before it holds */
    setPoint(name, nameSize, value);
    at += took;
  }
  apply();
  heardMs = millis();
  saidMs = heardMs - EVERY_MS; /* say at once what became of it */
}

void hear() {
  while (Serial.available() > 0) {
    byte next = Serial.read();
    if (next != END) {
      if (inSize <= IN_MAX) inSize++;
      if (inSize <= IN_MAX) in[inSize - 1] = next;
      continue;
    }
    if (inSize > 0 && inSize <= IN_MAX) {
      int size = unframe(in, inSize);
      if (size > 0) obey(in, size);
    }
    inSize = 0;
  }
}

/* --- the whole -------------------------------------------------------------------------------------------- */

void sayPoints() {
  beginMap(4);
  sayNumber("analog", analogRead(A0) * REFERENCE_V / STEPS);
  sayCount("uptime", millis() / 1000);
  sayBool("lamp", lamp);
  sayNumber("dimmer", dimmer);
  sendMap();
}

void setup() {
  digitalWrite(LAMP_PIN, LOW); /* level before direction */
  pinMode(LAMP_PIN, OUTPUT);
  pinMode(DIMMER_PIN, OUTPUT);
  apply();
  Serial.begin(BAUD);
}

void loop() {
  hear();
  unsigned long now = millis();
  if (SILENT_MS > 0 && now - heardMs > SILENT_MS) {
    lamp = false;
    dimmer = 0;
    apply();
  }
  if (now - saidMs >= EVERY_MS) {
    saidMs = now;
    sayPoints();
  }
}
