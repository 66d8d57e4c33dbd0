// Reads memory as fast as it comes: the ceiling that the bytes of weights are measured against. Each thread adds up what it reads,
// so that nothing can be left out, and writes one word for the sum that no data has.
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int AHEAD = 8;

extern "C" __global__ void __launch_bounds__(512) read_memory(const uint4 *from, u64 count, u32 *to) {
    const u64 stride = (u64)gridDim.x * blockDim.x;
    u32 sum = 0;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += stride * AHEAD) {
        uint4 v[AHEAD] = {};
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (at + i * stride < count) {
                asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(v[i].x), "=r"(v[i].y), "=r"(v[i].z), "=r"(v[i].w)
                             : "l"(from + at + i * stride));
            }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) sum += v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
    }
    if (sum == 0x9e3779b9u) *to = sum;
}
