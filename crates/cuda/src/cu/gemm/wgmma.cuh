// wgmma m64nNk32, u8 weights from registers times s8 activations from shared memory, for the N of this compilation (TILE_M tokens).
#pragma once
#include "sm90.cuh"

#ifndef WGMMA_A
#define WGMMA_A "u8"
#endif

#define ACC_4(i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define ACC_8(i) ACC_4(i), ACC_4(i + 4)
#define ACC_16(i) ACC_8(i), ACC_8(i + 8)
#define ACC_32(i) ACC_16(i), ACC_16(i + 16)
#define ACC_64(i) ACC_32(i), ACC_32(i + 32)

#define LIST_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define LIST_1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST_2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define LIST_3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LIST_4 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define LIST_5 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define LIST_6 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define LIST_7 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#if TILE_M == 8
#define WGMMA_SHAPE "m64n8k32"
#define WGMMA_LIST "%0, %1, %2, %3"
#define WGMMA_ACC ACC_4(0)
#define WGMMA_REST "{%4, %5, %6, %7}, %8, keep"
#define WGMMA_KEEP "%9"
#elif TILE_M == 16
#define WGMMA_SHAPE "m64n16k32"
#define WGMMA_LIST "%0, %1, %2, %3, %4, %5, %6, %7"
#define WGMMA_ACC ACC_8(0)
#define WGMMA_REST "{%8, %9, %10, %11}, %12, keep"
#define WGMMA_KEEP "%13"
#elif TILE_M == 32
#define WGMMA_SHAPE "m64n32k32"
#define WGMMA_LIST LIST_0
#define WGMMA_ACC ACC_16(0)
#define WGMMA_REST "{%16, %17, %18, %19}, %20, keep"
#define WGMMA_KEEP "%21"
#elif TILE_M == 64
#define WGMMA_SHAPE "m64n64k32"
#define WGMMA_LIST LIST_0 ", " LIST_1
#define WGMMA_ACC ACC_32(0)
#define WGMMA_REST "{%32, %33, %34, %35}, %36, keep"
#define WGMMA_KEEP "%37"
#elif TILE_M == 96
#define WGMMA_SHAPE "m64n96k32"
#define WGMMA_LIST LIST_0 ", " LIST_1 ", " LIST_2
#define WGMMA_ACC ACC_32(0), ACC_16(32)
#define WGMMA_REST "{%48, %49, %50, %51}, %52, keep"
#define WGMMA_KEEP "%53"
#elif TILE_M == 128
#define WGMMA_SHAPE "m64n128k32"
#define WGMMA_LIST LIST_0 ", " LIST_1 ", " LIST_2 ", " LIST_3
#define WGMMA_ACC ACC_64(0)
#define WGMMA_REST "{%64, %65, %66, %67}, %68, keep"
#define WGMMA_KEEP "%69"
#elif TILE_M == 160
#define WGMMA_SHAPE "m64n160k32"
#define WGMMA_LIST LIST_0 ", " LIST_1 ", " LIST_2 ", " LIST_3 ", " LIST_4
#define WGMMA_ACC ACC_64(0), ACC_16(64)
#define WGMMA_REST "{%80, %81, %82, %83}, %84, keep"
#define WGMMA_KEEP "%85"
#elif TILE_M == 192
#define WGMMA_SHAPE "m64n192k32"
#define WGMMA_LIST LIST_0 ", " LIST_1 ", " LIST_2 ", " LIST_3 ", " LIST_4 ", " LIST_5
#define WGMMA_ACC ACC_64(0), ACC_32(64)
#define WGMMA_REST "{%96, %97, %98, %99}, %100, keep"
#define WGMMA_KEEP "%101"
#elif TILE_M == 256
#define WGMMA_SHAPE "m64n256k32"
#define WGMMA_LIST LIST_0 ", " LIST_1 ", " LIST_2 ", " LIST_3 ", " LIST_4 ", " LIST_5 ", " LIST_6 ", " LIST_7
#define WGMMA_ACC ACC_64(0), ACC_64(64)
#define WGMMA_REST "{%128, %129, %130, %131}, %132, keep"
#define WGMMA_KEEP "%133"
#endif

// d = a * b + (keep ? d : 0), asynchronously; `a` and `d` stay untouched until wgmma_wait says so.
__device__ __forceinline__ void wgmma(int (&d)[TILE_M / 2], const u32 (&a)[4], u64 b, int keep) {
    asm volatile(
        "{\n.reg .pred keep;\n"
        "setp.ne.b32 keep, " WGMMA_KEEP ", 0;\n"
        "wgmma.mma_async.sync.aligned." WGMMA_SHAPE ".s32." WGMMA_A ".s8 {" WGMMA_LIST "}, " WGMMA_REST ";\n}"
        : WGMMA_ACC
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));
}
