/* A jump to any distance that needs no register: `jmp *0(%rip)`, then the address. Written over the beginning of a function. */
#ifndef KEN_HEAP_JUMP_H
#define KEN_HEAP_JUMP_H

#include <stdint.h>
#include <string.h>

struct jump {
    uint8_t code[6];
    uint64_t to;
} __attribute__((packed));

/* The memory is writable and has room for it. */
static inline void jump_write(void *at, uint64_t to)
{
    const struct jump jump = {{0xff, 0x25}, to};
    memcpy(at, &jump, sizeof jump);
}

#endif
