/* Attention backward, what each query row needs before the tiles: delta = d_y . y, and the
 * logarithm in base 2 with the sign the tiles want. With exclusive self attention out = y - (y.u)
 * u, u = v / |v|: y comes back from out and the saved y.u, d_y = d_out - (d_out.u) u is written for
 * the tiles, and what flows to v through u is written to d_v, to which the tiles add. One group of
 * eight threads takes one position of one key/value head and walks its query heads in order. */
#ifndef FAIRWAY_ATTENTION_BACKWARD_ROWS_CUH
#define FAIRWAY_ATTENTION_BACKWARD_ROWS_CUH

#include "cuda_device.h"

namespace attention_rows {

/* B sequences, T positions, heads of 64: where the rows of one tensor lie, in elements. */
struct heads {
    __nv_bfloat16 *data;
    int64_t batch, position, head;
};

struct parameters {
    heads v, out, d_out, d_v;
    const float *log_sum_exp, *self_dot; /* [B,H,T] */
    __nv_bfloat16 *d_y;                  /* [B,H,T,64] */
    float *statistics; /* [B,H,blocks][2][64]: -logarithm in base 2, then delta, of 64 rows */
    int positions, blocks, n_heads, groups;
    bool accumulate;
};

constexpr int THREADS = 256, LANES = 8, ROWS = THREADS / LANES;

struct row8 {
    float x[8];
};

/* Eight bfloat16 of a row. Volatile: the loads of a thread all start before its first sum. */
static __device__ __forceinline__ uint4 load_row(const heads &at, int64_t b, int64_t t, int64_t h,
                                                 int lane) {
    const __nv_bfloat16 *row = at.data + b * at.batch + t * at.position + h * at.head;
    uint4 raw;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
                 : "l"(row + lane * 8));
    return raw;
}

static __device__ __forceinline__ float load_value(const float *from) {
    float x;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(x) : "l"(from));
    return x;
}

static __device__ __forceinline__ row8 widen(const uint4 &raw) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    row8 r;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        r.x[2 * i] = __uint_as_float(words[i] << 16);
        r.x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
    return r;
}

static __device__ __forceinline__ void store_row(__nv_bfloat16 *row, const row8 &r, int lane) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(r.x[2 * i], r.x[2 * i + 1]);
        words[i] = *reinterpret_cast<const uint32_t *>(&pair);
    }
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(row + lane * 8), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
}

/* The sum over the eight threads of a row, the same in each. */
static __device__ __forceinline__ float dot(const row8 &a, const row8 &b) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += a.x[i] * b.x[i];
#pragma unroll
    for (int step = 1; step < LANES; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
    return sum;
}

/* u = v / max(|v|, 1e-12), and the factor; `radial` says whether |v| moves the factor. */
struct unit_row {
    row8 u;
    float inverse;
    bool radial;
};

static __device__ __forceinline__ unit_row unit_of(const row8 &v) {
    const float length = sqrtf(dot(v, v));
    unit_row r = {v, 1.0f / fmaxf(length, 1e-12f), length > 1e-12f};
#pragma unroll
    for (int i = 0; i < 8; i++) r.u.x[i] *= r.inverse;
    return r;
}

static __device__ __forceinline__ float rounded(float x) {
    return __bfloat162float(__float2bfloat16_rn(x));
}

/* Rows of `out` and d_out: y and d_y in their place; d_u grows. d_y is what the tiles will read, so
 * that delta is the mean of the very slopes it is taken from. */
static __device__ __forceinline__ void without_self(const row8 &u, float self, row8 &out,
                                                    row8 &d_out, row8 &d_u) {
    const float along = dot(d_out, u);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float y = out.x[i] + self * u.x[i];
        d_u.x[i] -= self * d_out.x[i] + along * y;
        d_out.x[i] = rounded(d_out.x[i] - along * u.x[i]);
        out.x[i] = y;
    }
}

static __device__ __forceinline__ void add_self_gradient(const parameters &p, const unit_row &unit,
                                                         const row8 &d_u, int64_t b, int64_t t,
                                                         int64_t g, int lane) {
    const float radial = dot(d_u, unit.u);
    row8 d_v = {};
    if (p.accumulate) d_v = widen(load_row(p.d_v, b, t, g, lane));
#pragma unroll
    for (int i = 0; i < 8; i++)
        d_v.x[i] += (d_u.x[i] - (unit.radial ? radial : 0.0f) * unit.u.x[i]) * unit.inverse;
    store_row(p.d_v.data + b * p.d_v.batch + t * p.d_v.position + g * p.d_v.head, d_v, lane);
}

/* Grid: B * G * blocks * 2, a block of threads for 32 positions. Rows past the end of the sequence
 * get statistics that make their weights zero. AT_ONCE heads are loaded together. */
template <bool EXCLUDE, int AT_ONCE>
static __global__ void __launch_bounds__(THREADS, 3) attention_rows_kernel(const parameters p) {
    const int lane = threadIdx.x % LANES, strips = p.blocks * 2;
    const int t = blockIdx.x % strips * ROWS + threadIdx.x / LANES;
    const int64_t g = blockIdx.x / strips % p.groups, b = blockIdx.x / strips / p.groups;
    const bool inside = t < p.positions;
    const int64_t row = inside ? t : p.positions - 1;
    const int each = p.n_heads / p.groups;
    uint4 v = {};
    if (EXCLUDE) v = load_row(p.v, b, row, g, lane);
    unit_row unit = {};
    row8 d_u = {};
    for (int first = 0; first < each; first += AT_ONCE) {
        const int64_t unit_index = b * p.n_heads + g * each + first;
        uint4 raw_out[AT_ONCE], raw_d_out[AT_ONCE];
        float self[AT_ONCE], logarithm[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int64_t at = (unit_index + i) * p.positions + row;
            raw_out[i] = load_row(p.out, b, row, g * each + first + i, lane);
            raw_d_out[i] = load_row(p.d_out, b, row, g * each + first + i, lane);
            logarithm[i] = load_value(p.log_sum_exp + at);
            self[i] = EXCLUDE ? load_value(p.self_dot + at) : 0.0f;
        }
        if (EXCLUDE && first == 0) unit = unit_of(widen(v));
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            row8 out = widen(raw_out[i]), d_out = widen(raw_d_out[i]);
            if (EXCLUDE) {
                without_self(unit.u, self[i], out, d_out, d_u);
                __nv_bfloat16 *d_y = p.d_y + ((unit_index + i) * p.positions + row) * 64;
                if (inside) store_row(d_y, d_out, lane);
            }
            const float delta = dot(out, d_out);
            float *to = p.statistics + ((unit_index + i) * p.blocks + t / 64) * 128 + t % 64;
            if (lane == 0) {
                to[0] = inside ? -1.44269504f * logarithm[i] : -INFINITY;
                to[64] = inside ? delta : 0.0f;
            }
        }
    }
    if (EXCLUDE && inside) add_self_gradient(p, unit, d_u, b, t, g, lane);
}

} /* namespace attention_rows */

#endif
