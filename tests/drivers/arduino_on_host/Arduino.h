/* As much of Arduino as the sketch needs, on a computer: the serial port is standard input and output. */
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <poll.h>
#include <time.h>
#include <unistd.h>

typedef unsigned char byte;

enum { LOW, HIGH, INPUT = 0, OUTPUT = 1, LED_BUILTIN = 13, A0 = 14 };

inline unsigned long millis() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000UL + now.tv_nsec / 1000000;
}

inline void pinMode(int, int) {}
inline void digitalWrite(int pin, int level) { fprintf(stderr, "pin %d %d\n", pin, level); }
inline void analogWrite(int pin, int value) { fprintf(stderr, "pwm %d %d\n", pin, value); }
inline int analogRead(int) { return 512; }

struct HostSerial {
  void begin(unsigned long) {}
  void write(byte value) { write(&value, 1); }
  void write(const byte *data, int size) {
    if (::write(1, data, size) < 0) exit(0);
  }
  int available() {
    struct pollfd input = {0, POLLIN, 0};
    return poll(&input, 1, 0);
  }
  int read() {
    byte value;
    if (::read(0, &value, 1) != 1) exit(0); /* the host has gone */
    return value;
  }
};

static HostSerial Serial;

void setup();
void loop();

int main() {
  setup();
  for (;;) {
    loop();
    usleep(1000);
  }
}
