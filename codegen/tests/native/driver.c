/* Calls kernels of an object file on recorded inputs and compares what they write with what is recorded.
 *
 * Case file, little-endian u32s:  cases, then for each case
 *   kernel, bytes of the eight operands, the bytes of weights, acts and sums, the expected bytes of out.
 * Each operand ends where an unreadable page begins, so that reading or writing past it faults; and as its
 * length is arbitrary, so is its alignment. Each case is called twice with the same scratch. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels.h"

typedef struct entry {
  const char *name;
  void (*call)(const bitnet_args *);
  const unsigned char *consts;
} entry;

extern const entry entries[];
extern const unsigned n_entries;

enum { WEIGHTS, ACTS, SUMS, CONSTS, SCRATCH0, SCRATCH1, OUT, SCALES, OPERANDS };

static void die(const char *why) {
  fprintf(stderr, "driver: %s\n", why);
  exit(2);
}

static uint32_t word(FILE *f) {
  uint32_t v;
  if (fread(&v, 4, 1, f) != 1) die("case file ends early");
  return v;
}

typedef struct guarded {
  unsigned char *map, *data;
  size_t map_bytes;
} guarded;

static guarded guard(size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t body = (bytes + page - 1) / page * page;
  guarded g;
  g.map_bytes = body + page;
  g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (g.map == MAP_FAILED) die("mmap");
  if (mprotect(g.map + body, page, PROT_NONE)) die("mprotect");
  g.data = g.map + body - bytes;
  return g;
}

int main(int argc, char **argv) {
  if (argc != 2) die("usage: driver CASES");
  FILE *f = fopen(argv[1], "rb");
  if (!f) die("no case file");
  uint32_t cases = word(f), wrong = 0;
  for (uint32_t c = 0; c < cases; c++) {
    uint32_t kernel = word(f), bytes[OPERANDS];
    if (kernel >= n_entries) die("no such kernel");
    guarded g[OPERANDS];
    bitnet_args args = {{0}, {bitnet_prefetch1, bitnet_prefetch2, bitnet_prefetch4, bitnet_prefetch8}};
    for (int o = 0; o < OPERANDS; o++) bytes[o] = word(f);
    for (int o = 0; o < OPERANDS; o++) {
      g[o] = guard(bytes[o]);
      args.operands[o] = g[o].data;
      if (o <= SUMS && fread(g[o].data, 1, bytes[o], f) != bytes[o]) die("case file ends early");
    }
    if (bytes[CONSTS]) memcpy(g[CONSTS].data, entries[kernel].consts, bytes[CONSTS]);
    unsigned char *want = malloc(bytes[OUT] + 1);
    if (!want || fread(want, 1, bytes[OUT], f) != bytes[OUT]) die("case file ends early");
    for (int call = 0; call < 2; call++) {
      memset(g[OUT].data, 0xA5, bytes[OUT]);
      entries[kernel].call(&args);
      for (uint32_t i = 0; i < bytes[OUT]; i++) {
        if (g[OUT].data[i] == want[i]) continue;
        printf("WRONG %s case %u call %d: byte %u of out is %u, expected %u\n", entries[kernel].name, c, call, i,
               g[OUT].data[i], want[i]);
        wrong++;
        break;
      }
    }
    free(want);
    for (int o = 0; o < OPERANDS; o++) munmap(g[o].map, g[o].map_bytes);
  }
  printf("%u kernels, %u cases, %u wrong\n", n_entries, cases, wrong);
  return wrong ? 1 : 0;
}
