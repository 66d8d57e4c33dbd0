// Freivalds' check of a product D = A * B at full size: D * r against A * (B * r) for a random vector r, three reads of matrices
// instead of a product. Integers are summed modulo 2^32, where the check is exact; floats in double precision against a
// bound of their rounding (the host says which and why).
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define S8 0
#define I32 1
#define F32 2
#define F16 3
#define BF16 4
#ifndef ELEMENT
#define ELEMENT S8
#endif

#if ELEMENT == S8
typedef signed char Element;
#elif ELEMENT == I32
typedef int Element;
#elif ELEMENT == F32
typedef float Element;
#else
typedef u16 Element;
#endif

#if ELEMENT == S8 || ELEMENT == I32
typedef u32 Sum;
__device__ __forceinline__ Sum value(Element x) { return (u32)(int)x; }
#else
typedef double Sum;
__device__ __forceinline__ Sum value(Element x) {
#if ELEMENT == F32
    return x;
#elif ELEMENT == BF16
    return __uint_as_float((u32)x << 16);
#else
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x));
    return f;
#endif
}
#endif

constexpr int THREADS = 256;
// Rows that a CTA of vector_times_matrix takes.
constexpr int ROWS = 128;

template <class T>
__device__ __forceinline__ T sum_of_block(T sum) {
    __shared__ T parts[THREADS / 32];
    for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lane);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    if (threadIdx.x == 0)
        for (int i = 0; i < THREADS / 32; i++) sum += parts[i];
    __syncthreads();
    return sum;
}

// out[row] = sum of x[row, column] * v[column]; `squares`, if any, the sum of x[row, column]^2. One CTA a row.
extern "C" __global__ void __launch_bounds__(THREADS)
    matrix_times_vector(const Element *x, long long row_elements, int columns, const Sum *v, Sum *out, double *squares) {
    const Element *row = x + (long long)blockIdx.x * row_elements;
    Sum sum = 0;
    double square = 0;
    for (int column = threadIdx.x; column < columns; column += THREADS) {
        const Sum element = value(row[column]);
        sum += element * v[column];
        square += (double)element * (double)element;
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
    if (squares == nullptr) return;
    square = sum_of_block(square);
    if (threadIdx.x == 0) squares[blockIdx.x] = square;
}

// out[column] += sum over rows of v[row] * x[row, column]. A CTA has 256 columns of 128 rows.
extern "C" __global__ void __launch_bounds__(THREADS)
    vector_times_matrix(const Element *x, long long row_elements, int rows, int columns, const Sum *v, Sum *out) {
    const int column = blockIdx.x * THREADS + threadIdx.x;
    if (column >= columns) return;
    const int first = blockIdx.y * ROWS, end = min(rows, first + ROWS);
    Sum sum = 0;
    for (int row = first; row < end; row++) sum += v[row] * value(x[row * row_elements + column]);
    atomicAdd(out + column, sum);
}

__device__ __forceinline__ u32 hashed(u64 at) {
    u64 z = (at + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (u32)((z ^ (z >> 31)) >> 16);
}

// Any 32 bits for integers, a sign for floats.
extern "C" __global__ void __launch_bounds__(THREADS) random_vector(Sum *v, int count, u64 seed) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    const u32 bits = hashed(seed * 0x100000000ull + i);
#if ELEMENT == S8 || ELEMENT == I32
    v[i] = bits;
#else
    v[i] = bits & 1 ? 1.0 : -1.0;
#endif
}

// Counts rows whose D * r is not what it should be: alpha * expected + beta * before, as exactly as `absolute` and `relative` allow:
// a bound of the accumulation's rounding over a row, and the rounding of an output relative to itself.
extern "C" __global__ void __launch_bounds__(THREADS)
    count_wrong_rows(const Sum *got, const Sum *expected, const Sum *before, const double *squares, int rows, double alpha,
                     double beta, double absolute, double relative, u32 *wrong) {
    const int row = blockIdx.x * THREADS + threadIdx.x;
    if (row >= rows) return;
#if ELEMENT == S8 || ELEMENT == I32
    const bool right = got[row] == expected[row];
#else
    const double should = alpha * expected[row] + (before == nullptr ? 0.0 : beta * before[row]);
    const double allowed = sqrt(absolute * absolute + relative * relative * squares[row]);
    // Not a number is not right.
    const bool right = fabs(got[row] - should) <= allowed;
#endif
    if (!right) atomicAdd(wrong, 1u);
}
