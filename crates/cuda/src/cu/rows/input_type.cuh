// The type of what a product leaves and a kernel behind it reads.
#pragma once
#include "float_rules.cuh"

#ifndef IN
#define IN 0  // 0: f32, 2: bf16
#endif

static_assert(IN == 0 || IN == 2, "f32 or bf16");
#if IN == 0
typedef float In;
#else
typedef u16 In;
#endif
