/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <libelf.h>
#include <stdio.h>

#include "unwind/procmap.h"
#include "unwind/types.h"

/*
 * Captures of a thread in a file, with all that unwinding them needs: what a test of the unwinder
 * starts from, or somebody else's wrong stack. Raw stack bytes are in it, secrets and all: only
 * `swprofd --record` writes one, on demand.
 *
 * Format, version 1. Integers are little-endian and not aligned; sizes are of what follows them.
 *
 *   file     "SWPREC\r\n" u32 version  record…
 *   record   u32 type  u64 size  body
 *   IMAGE    u64 size of the file  { u64 offset  u64 size  bytes }…
 *            An ELF file with holes: headers, unwind information, and the code around the addresses
 *            that the captures hold. Ranges ascend and do not touch. What is in no range is 0.
 *   MODULE   u32 image  u32 image of the separate debug file  u32 size  name  build-id in hex
 *            NONE (all bits set) where there is none. Images come before.
 *   MAP      u32 n  n × { u32 mapping  u32 module }  text as in /proc/PID/maps
 *            Just one. Modules come before; mappings ascend, counted from 0.
 *   CAPTURE  u64 mono_ns  i64 syscall  u64 × N_REGS registers  u64 addr  bytes of the stack
 *   OTHER    u64 addr  bytes of the other stack, where there is one
 *   GO       u64 stack pointer  u64 pc: what the goroutine goes on with
 *   CODE     bytes from the pc on
 *            Of the CAPTURE that is the last one before them.
 *
 * Records of other types are passed over, wherever they stand. No number of ours is reused when a
 * body changes: that would be another version.
 */

#define RECORDING_MAGIC   "SWPREC\r\n"
#define RECORDING_VERSION 1U
#define RECORDING_NONE    UINT32_MAX /* instead of the number of an image or a module */

enum {
        RECORDING_IMAGE = 1,
        RECORDING_MODULE,
        RECORDING_MAP,
        RECORDING_CAPTURE,
        RECORDING_OTHER,
        RECORDING_GO,
        RECORDING_CODE,
};

enum {
        _RECORDING_E_SUCCESS,
        RECORDING_E_BAD, /* not a recording of this version, or cut off; not an ELF file */
};

typedef struct RecordingCapture {
        uint64_t mono_ns;
        int64_t syscall; /* number of the system call it was in, -1: none */
        StackCopy copy;
} RecordingCapture;

/* ---- writing ---- */

/* Each appends to f, whose errors are sticky: ferror() tells at the end. The strings are not to be
 * longer than a path. */
void recording_write_head(FILE *f);
void recording_write_module(
        FILE *f, uint32_t image, uint32_t debug_image, const char *name, const char *build_id);
/* `modules`: of each mapping, RECORDING_NONE: none. Return: 0, -ENOMEM. */
int recording_write_map(FILE *f, const ProcMap *map, const uint32_t *modules);
void recording_write_capture(FILE *f, const RecordingCapture *c);

/*
 * What unwinding reads of an ELF file, and of its code just that around the given addresses (in
 * the file's terms). Return: 0; RECORDING_E_BAD: not a usable ELF file, nothing was written;
 * -ENOMEM.
 */
int recording_write_image(FILE *f, Elf *elf, const uint64_t *vaddrs, size_t n_vaddrs);

/* ---- reading ---- */

typedef struct RecordingRange {
        uint64_t offset, size;
        const uint8_t *bytes;
} RecordingRange;

typedef struct RecordingImage {
        uint64_t size;
        size_t n_ranges;
        RecordingRange *ranges;
} RecordingImage;

typedef struct RecordingModule {
        uint32_t image, debug_image; /* RECORDING_NONE: none */
        char *name, *build_id;
} RecordingModule;

typedef struct Recording {
        size_t n_images, n_modules, n_captures;
        RecordingImage *images;
        RecordingModule *modules;
        RecordingCapture *captures;
        ProcMap *map;          /* without modules: map_modules tells */
        uint32_t *map_modules; /* of each mapping; RECORDING_NONE: none */
} Recording;

/* A pure function; memory and time are proportional to the size. Bytes of images and stacks are
 * borrowed from `bytes`. Return: 0, RECORDING_E_BAD, -ENOMEM. */
int recording_read(Recording **ret, const uint8_t *bytes, size_t size);
Recording *recording_free(Recording *r);
DEFINE_CLEANUP(Recording *, recording_free)

/* The whole file, holes and all: malloc'ed, image->size bytes, at most RECORDING_IMAGE_MAX. NULL: no
 * memory. */
#define RECORDING_IMAGE_MAX (1ULL << 30)
uint8_t *recording_image_expand(const RecordingImage *image);
