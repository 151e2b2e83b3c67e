/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The integer types that bcc's prologue and our program use. */
#ifndef KALLOCTRACE_LINUX_TYPES_H
#define KALLOCTRACE_LINUX_TYPES_H

typedef signed char s8;
typedef unsigned char u8;
typedef short s16;
typedef unsigned short u16;
typedef int s32;
typedef unsigned int u32;
typedef long long s64;
typedef unsigned long long u64;

typedef s8 __s8;
typedef u8 __u8;
typedef s16 __s16;
typedef u16 __u16;
typedef s32 __s32;
typedef u32 __u32;
typedef s64 __s64;
typedef u64 __u64;

typedef u16 __le16, __be16, __sum16;
typedef u32 __le32, __be32, __wsum;
typedef u64 __le64, __be64;

#define __aligned_u64 u64 __attribute__((aligned(8)))

typedef _Bool bool;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;

enum { false, true };

#define NULL ((void *)0)

#define __always_inline inline __attribute__((always_inline))

#endif
