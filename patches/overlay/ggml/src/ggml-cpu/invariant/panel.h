#pragma once

// Weight panels: the rows of a matrix, interleaved so that one lane of a vector is one row.
//
// A panel holds ROWS rows; along it lie blocks of BLOCK columns of the matrix, each of BYTES bytes. Rows past the end
// of the matrix are zeros. Activations ("x") come in tiles of up to MAX_COLS columns, for each block the columns one
// after another, so that a kernel walks weights and activations with one pointer each.
//
// The sum of one (row, column) pair runs over the blocks in order, by the same operations whatever stands in the other
// lanes and columns. Hence a result's bits depend neither on the number of columns nor on the number of threads.

#include "simd.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <algorithm>
#include <type_traits>

#ifdef GGML_INVARIANT

namespace ggml::cpu::invariant {

// ---- activations

// 32 values of a column, as 8-bit integers
struct q8_act {
    float   d;       // x = d*qs, by as much less as the integers of the weights are larger
    float   s;       // d * sum of qs
    int32_t init[2]; // what the integer sums over qs[0..15] and qs[16..31] start at: -zero point * sum of qs; for weights with
                     // one scale for all 32, init[0] is that of all
    int8_t  qs[32];
};

// ---- weights

// the value that is stored for a weight of zero, for types whose weights may be negative
template <int SIGNED_ZERO, int UNSIGNED_ZERO> constexpr int zero_point() {
    return W_IS_SIGNED ? SIGNED_ZERO : UNSIGNED_ZERO;
}

// The matrix unit multiplies signed bytes, too, and then nothing is to be added to its sums. So where it is, the weights of Q4_0 and
// Q8_0 lie signed, and the vectors' unsigned bytes are the same with the sign bit flipped. To leave the four bits of Q4_0 at the
// upper end of a byte is cheaper than to extend their sign: its integers are 16 times the weights (TIMES), and the scale of the
// activations is less by that. For Q5_0 it was slower, since bits have to be moved further.
#ifdef GGML_INVARIANT_AMX
static constexpr bool SIGNED_TILES = true;
#else
static constexpr bool SIGNED_TILES = false;
#endif

// the weights of a tile: as sub() takes them apart for vectors, unsigned and with ZERO still in them; signed, as tile() takes
// them apart; signed, as they lie in the panel
enum class tile_weights { AS_VECTORS, SIGNED, IN_PLACE };

// MIN_COLS_TILES: the fewest columns for which tiles are faster than vectors, measured with Sapphire Rapids

static inline void pack_f16(ggml_half * dst, int r, ggml_half v) { dst[r] = v; }

// bytes of rows, four by four: dst[g][row][4] = src[4*g ...]
static inline void pack_bytes(uint8_t * dst, int r, const uint8_t * src, int n, uint8_t flip = 0) {
    for (int i = 0; i < n; i++) {
        dst[(i/4)*LANES*4 + r*4 + i%4] = src[i] ^ flip;
    }
}

struct w_q4_0 {
    using block = block_q4_0;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = 32, SUBS = 1, TIMES = SIGNED_TILES ? 16 : 1, MAXW = 15*TIMES, ZERO = 8*TIMES;
    static constexpr tile_weights TILES = tile_weights::SIGNED;
    static constexpr int MIN_COLS_TILES = 7;
    static constexpr bool HAS_MIN = false, TWO_SCALES = false;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.d);
        pack_bytes(dst + 2*ROWS, r, b.qs, 16, SIGNED_TILES ? 0x88 : 0);
    }

    const uint8_t * w;
    inline explicit w_q4_0(const uint8_t * w) : w(w) {}
    inline void sub(int, u8v * q, f32v & d, f32v &, f32v &) const {
        d = load_f16(w);
        for (int g = 0; g < 4; g++) {
            const u8v v = load_u8(w + 2*ROWS + g*LANES*4);
#ifdef GGML_INVARIANT_AMX
            q[g]     = and_xor(shl16<4>(v), set1_u8(0xf0), set1_u8(0x80));
            q[g + 4] = and_xor(v,           set1_u8(0xf0), set1_u8(0x80));
#else
            q[g]     = and_(v, set1_u8(15));
            q[g + 4] = and_(shr16<4>(v), set1_u8(15));
#endif
        }
    }
#ifdef GGML_INVARIANT_AMX
    inline void tile(u8v * q) const {
        for (int g = 0; g < 4; g++) {
            const u8v v = load_u8(w + 2*ROWS + g*LANES*4);
            q[g]     = and_(shl16<4>(v), set1_u8(0xf0));
            q[g + 4] = and_(v,           set1_u8(0xf0));
        }
    }
#endif
};

struct w_q4_1 {
    using block = block_q4_1;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = 32, SUBS = 1, TIMES = 1, MAXW = 15, ZERO = 0;
    static constexpr tile_weights TILES = tile_weights::AS_VECTORS;
    static constexpr int MIN_COLS_TILES = 7;
    static constexpr bool HAS_MIN = true, TWO_SCALES = false;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.GGML_COMMON_AGGR_U.GGML_COMMON_AGGR_S.d);
        pack_f16((ggml_half *) dst + ROWS, r, b.GGML_COMMON_AGGR_U.GGML_COMMON_AGGR_S.m);
        pack_bytes(dst + 4*ROWS, r, b.qs, 16);
    }

    const uint8_t * w;
    inline explicit w_q4_1(const uint8_t * w) : w(w) {}
    inline void sub(int, u8v * q, f32v & d, f32v &, f32v & m) const {
        d = load_f16(w);
        m = load_f16(w + 2*ROWS);
        for (int g = 0; g < 4; g++) {
            const u8v v = load_u8(w + 4*ROWS + g*LANES*4);
            q[g]     = and_(v, set1_u8(15));
            q[g + 4] = and_(shr16<4>(v), set1_u8(15));
        }
    }
};

struct w_q8_0 {
    using block = block_q8_0;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = 32, SUBS = 1, TIMES = 1, MAXW = 255, ZERO = zero_point<0, 128>();
    static constexpr tile_weights TILES = tile_weights::IN_PLACE;
    static constexpr int MIN_COLS_TILES = 6;
    static constexpr bool HAS_MIN = false, TWO_SCALES = false;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.d);
        pack_bytes(dst + 2*ROWS, r, (const uint8_t *) b.qs, 32, SIGNED_TILES ? 0 : ZERO);
    }

    const uint8_t * w;
    inline explicit w_q8_0(const uint8_t * w) : w(w) {}
    inline void sub(int, u8v * q, f32v & d, f32v &, f32v &) const {
        d = load_f16(w);
        for (int g = 0; g < 8; g++) {
            q[g] = load_u8(w + 2*ROWS + g*LANES*4);
#ifdef GGML_INVARIANT_AMX
            q[g] = xor_(q[g], set1_u8(ZERO));
#endif
        }
    }
    inline const uint8_t * tile() const { return w + 2*ROWS; }
};

// the fifth bits of 32 weights, as qh of Q5_0 and Q5_1 has them, reordered: byte b, bit g is that of weight 4*g + b
static inline void pack_fifth_bits(uint8_t * dst, int r, const uint8_t * qh) {
    for (int b = 0; b < 4; b++) {
        uint8_t v = 0;
        for (int g = 0; g < 8; g++) {
            const int i = 4*g + b;
            v |= ((qh[i/8] >> i%8) & 1) << g;
        }
        dst[4*r + b] = v;
    }
}

// q[g] for g < 8: nibbles with the fifth bits
static inline void unpack_5bit(const uint8_t * qh, const uint8_t * qs, u8v * q) {
    const u8v h = load_u8(qh), m = set1_u8(16);
    const u8v bits[8] = { shl16<4>(h), shl16<3>(h), shl16<2>(h), shl16<1>(h), h, shr16<1>(h), shr16<2>(h), shr16<3>(h) };
    for (int g = 0; g < 4; g++) {
        const u8v v = load_u8(qs + g*LANES*4);
        q[g]     = and_or(bits[g],     m, and_(v, set1_u8(15)));
        q[g + 4] = and_or(bits[g + 4], m, and_(shr16<4>(v), set1_u8(15)));
    }
}

struct w_q5_0 {
    using block = block_q5_0;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = 32, SUBS = 1, TIMES = 1, MAXW = 31, ZERO = 16;
    static constexpr tile_weights TILES = tile_weights::AS_VECTORS;
    static constexpr int MIN_COLS_TILES = 5;
    static constexpr bool HAS_MIN = false, TWO_SCALES = false;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.d);
        pack_fifth_bits(dst + 2*ROWS, r, b.qh);
        pack_bytes(dst + 6*ROWS, r, b.qs, 16);
    }

    const uint8_t * w;
    inline explicit w_q5_0(const uint8_t * w) : w(w) {}
    inline void sub(int, u8v * q, f32v & d, f32v &, f32v &) const {
        d = load_f16(w);
        unpack_5bit(w + 2*ROWS, w + 6*ROWS, q);
    }
};

struct w_q5_1 {
    using block = block_q5_1;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = 32, SUBS = 1, TIMES = 1, MAXW = 31, ZERO = 0;
    static constexpr tile_weights TILES = tile_weights::AS_VECTORS;
    static constexpr int MIN_COLS_TILES = 5;
    static constexpr bool HAS_MIN = true, TWO_SCALES = false;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.GGML_COMMON_AGGR_U.GGML_COMMON_AGGR_S.d);
        pack_f16((ggml_half *) dst + ROWS, r, b.GGML_COMMON_AGGR_U.GGML_COMMON_AGGR_S.m);
        pack_fifth_bits(dst + 4*ROWS, r, b.qh);
        pack_bytes(dst + 8*ROWS, r, b.qs, 16);
    }

    const uint8_t * w;
    inline explicit w_q5_1(const uint8_t * w) : w(w) {}
    inline void sub(int, u8v * q, f32v & d, f32v &, f32v & m) const {
        d = load_f16(w);
        m = load_f16(w + 2*ROWS);
        unpack_5bit(w + 4*ROWS, w + 8*ROWS, q);
    }
};

struct w_iq4_nl {
    using block = block_iq4_nl;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = 32, SUBS = 1, TIMES = 1, MAXW = 255, ZERO = zero_point<0, 128>();
    static constexpr tile_weights TILES = tile_weights::SIGNED;
    static constexpr int MIN_COLS_TILES = 6;
    static constexpr bool HAS_MIN = false, TWO_SCALES = false;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.d);
        pack_bytes(dst + 2*ROWS, r, b.qs, 16);
    }

    // kvalues_iq4nl of ggml-common.h, from the zero point on
    alignas(16) static constexpr uint8_t VALUES[16] = {
        (uint8_t) (ZERO - 127), (uint8_t) (ZERO - 104), (uint8_t) (ZERO - 83), (uint8_t) (ZERO - 65),
        (uint8_t) (ZERO -  49), (uint8_t) (ZERO -  35), (uint8_t) (ZERO - 22), (uint8_t) (ZERO - 10),
        (uint8_t) (ZERO +   1), (uint8_t) (ZERO +  13), (uint8_t) (ZERO + 25), (uint8_t) (ZERO + 38),
        (uint8_t) (ZERO +  53), (uint8_t) (ZERO +  69), (uint8_t) (ZERO + 89), (uint8_t) (ZERO + 113),
    };

    const uint8_t * w;
    inline explicit w_iq4_nl(const uint8_t * w) : w(w) {}
    inline void sub(int, u8v * q, f32v & d, f32v &, f32v &) const {
        d = load_f16(w);
        for (int g = 0; g < 4; g++) {
            const u8v v = load_u8(w + 2*ROWS + g*LANES*4);
            q[g]     = lookup16(VALUES, and_(v, set1_u8(15)));
            q[g + 4] = lookup16(VALUES, and_(shr16<4>(v), set1_u8(15)));
        }
    }
#ifdef GGML_INVARIANT_AMX
    inline void tile(u8v * q) const {
        f32v unused;
        sub(0, q, unused, unused, unused);
        for (int g = 0; g < 8; g++) {
            q[g] = xor_(q[g], set1_u8(ZERO));
        }
    }
#endif
};

// the 6-bit scales and mins of Q4_K and Q5_K, eight of each in twelve bytes, for all rows of a panel
struct k_scales {
    i32v sc[2], mn[2]; // four to a lane, a byte each
    inline explicit k_scales(const uint8_t * w) {
        const i32v u0 = load_i32v(w), u1 = load_i32v(w + 4*LANES), u2 = load_i32v(w + 8*LANES);
        const i32v k6 = set1(0x3f3f3f3f), k4 = set1(0x0f0f0f0f), k2 = set1(0x03030303);
        sc[0] = and_(u0, k6);
        mn[0] = and_(u1, k6);
        const i32v hs = and_(shr32<6>(u0), k2), hm = and_(shr32<6>(u1), k2);
        sc[1] = or_(and_(u2, k4), shl4(hs));
        mn[1] = or_(and_(shr32<4>(u2), k4), shl4(hm));
    }
    static inline i32v shl4(i32v v) { return shl16<4>(v); } // values below 4: nothing leaves its byte
    inline f32v scale(int j) const { return to_f32(and_(shr32(sc[j/4], 8*(j%4)), set1(255))); }
    inline f32v min(int j) const { return to_f32(and_(shr32(mn[j/4], 8*(j%4)), set1(255))); }
};

struct w_q4_K {
    using block = block_q4_K;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = QK_K, SUBS = 8, TIMES = 1, MAXW = 15, ZERO = 0;
    static constexpr tile_weights TILES = tile_weights::AS_VECTORS;
    static constexpr int MIN_COLS_TILES = 5;
    static constexpr bool HAS_MIN = true, TWO_SCALES = false;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.GGML_COMMON_AGGR_U.GGML_COMMON_AGGR_S.d);
        pack_f16((ggml_half *) dst + ROWS, r, b.GGML_COMMON_AGGR_U.GGML_COMMON_AGGR_S.dmin);
        pack_bytes(dst + 4*ROWS, r, b.scales, 12);
        pack_bytes(dst + 16*ROWS, r, b.qs, 128);
    }

    const uint8_t * w;
    const k_scales  ks;
    const f32v      d, dmin;
    inline explicit w_q4_K(const uint8_t * w) : w(w + 16*ROWS), ks(w + 4*ROWS), d(load_f16(w)), dmin(mul(load_f16(w + 2*ROWS), set1(-1.0f))) {}
    inline void sub(int j, u8v * q, f32v & ws, f32v &, f32v & m) const {
        ws = mul(d, ks.scale(j));
        m  = mul(dmin, ks.min(j));
        for (int g = 0; g < 8; g++) {
            const u8v v = load_u8(w + ((j/2)*8 + g)*LANES*4);
            q[g] = and_(j%2 ? shr16<4>(v) : v, set1_u8(15));
        }
    }
};

struct w_q5_K {
    using block = block_q5_K;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = QK_K, SUBS = 8, TIMES = 1, MAXW = 31, ZERO = 0;
    static constexpr tile_weights TILES = tile_weights::AS_VECTORS;
    static constexpr int MIN_COLS_TILES = 4;
    static constexpr bool HAS_MIN = true, TWO_SCALES = false;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.GGML_COMMON_AGGR_U.GGML_COMMON_AGGR_S.d);
        pack_f16((ggml_half *) dst + ROWS, r, b.GGML_COMMON_AGGR_U.GGML_COMMON_AGGR_S.dmin);
        pack_bytes(dst + 4*ROWS, r, b.scales, 12);
        pack_bytes(dst + 16*ROWS, r, b.qh, 32);
        pack_bytes(dst + 48*ROWS, r, b.qs, 128);
    }

    const uint8_t * w;
    const k_scales  ks;
    const f32v      d, dmin;
    inline explicit w_q5_K(const uint8_t * w) : w(w + 16*ROWS), ks(w + 4*ROWS), d(load_f16(w)), dmin(mul(load_f16(w + 2*ROWS), set1(-1.0f))) {}
    inline void sub(int j, u8v * q, f32v & ws, f32v &, f32v & m) const {
        ws = mul(d, ks.scale(j));
        m  = mul(dmin, ks.min(j));
        for (int g = 0; g < 8; g++) {
            const u8v h = load_u8(w + g*LANES*4);
            const u8v v = load_u8(w + 32*ROWS + ((j/2)*8 + g)*LANES*4);
            // bit j of h becomes bit 4
            const u8v b = j < 4 ? shl16_n(h, 4 - j) : shr16_n(h, j - 4);
            q[g] = and_or(b, set1_u8(16), and_(j%2 ? shr16<4>(v) : v, set1_u8(15)));
        }
    }
    static inline u8v shl16_n(u8v v, int n) { return n == 4 ? shl16<4>(v) : n == 3 ? shl16<3>(v) : n == 2 ? shl16<2>(v) : shl16<1>(v); }
    static inline u8v shr16_n(u8v v, int n) { return n == 0 ? v : n == 1 ? shr16<1>(v) : n == 2 ? shr16<2>(v) : shr16<3>(v); }
};

struct w_q6_K {
    using block = block_q6_K;
    using act   = q8_act;
    static constexpr int ROWS = LANES, BLOCK = QK_K, SUBS = 8, TIMES = 1, MAXW = 63, ZERO = 32;
    static constexpr int MIN_COLS_TILES = 17; // two scales for 32 weights: nothing is gained
    static constexpr bool HAS_MIN = false, TWO_SCALES = true;
    static constexpr int BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) {
        pack_f16((ggml_half *) dst, r, b.d);
        for (int i = 0; i < 16; i++) {
            dst[(2 + i)*ROWS + r] = (uint8_t) b.scales[i];
        }
        pack_bytes(dst + 18*ROWS, r, b.qh, 64);
        pack_bytes(dst + 82*ROWS, r, b.ql, 128);
    }

    const uint8_t * w;
    const f32v      d;
    inline explicit w_q6_K(const uint8_t * w) : w(w), d(load_f16(w)) {}
    inline void sub(int j, u8v * q, f32v & d0, f32v & d1, f32v &) const {
        d0 = mul(d, load_i8_as_f32(w + (2 + 2*j)*ROWS));
        d1 = mul(d, load_i8_as_f32(w + (3 + 2*j)*ROWS));
        const int half = j/4, s = j%4;
        for (int g = 0; g < 8; g++) {
            const u8v l = load_u8(w + 82*ROWS + ((half*2 + s%2)*8 + g)*LANES*4);
            const u8v h = load_u8(w + 18*ROWS + (half*8 + g)*LANES*4);
            const u8v b = s == 0 ? shl16<4>(h) : s == 1 ? shl16<2>(h) : s == 2 ? h : shr16<2>(h);
            q[g] = and_or(b, set1_u8(48), and_(s/2 ? shr16<4>(l) : l, set1_u8(15)));
        }
    }
};

// How far ahead weights are fetched, bytes. Panels lie one after another: past the end of one is the start of the next.
static constexpr int AHEAD = 4096;

template <int BYTES> static inline void prefetch_block(const uint8_t * w) {
#pragma GCC unroll 64
    for (int i = 0; i < BYTES; i += 64) {
        prefetch(w + AHEAD + i);
    }
}

// ---- integer kernel

// adds what 32 weights and 32 values of a column give; i0, i1: the integer sums over the two halves, or i0 that over all if
// W has one scale for them
template <typename W> static inline void add_q8(i32v i0, i32v i1, f32v d0, f32v d1, f32v m, const q8_act & x, f32v & acc) {
    if (W::TWO_SCALES) {
        const f32v t = fma(to_f32(i1), d1, mul(to_f32(i0), d0));
        acc = fma(t, set1(x.d), acc);
    } else {
        acc = fma(to_f32(i0), mul(d0, set1(x.d)), acc);
    }
    if (W::HAS_MIN) {
        acc = fma(m, set1(x.s), acc);
    }
}

// 32 weights and 32 values of a column
template <typename W> static inline void mad_q8(const u8v * q, f32v d0, f32v d1, f32v m, const q8_act & x, f32v & acc) {
    if (W::TWO_SCALES) {
        const i32v i0 = dot4<W::MAXW>(set1(x.init[0]), q,     x.qs);
        const i32v i1 = dot4<W::MAXW>(set1(x.init[1]), q + 4, x.qs + 16);
        add_q8<W>(i0, i1, d0, d1, m, x, acc);
    } else if (W::MAXW <= 15*W::TIMES && W::SUBS == 1) {
        // two shorter chains: measured faster here than dot8()
        const i32v i0 = dot4<W::MAXW>(set1(x.init[0]), q, x.qs);
        const i32v i1 = dot4<W::MAXW>(set1((int32_t) 0), q + 4, x.qs + 16);
        add_q8<W>(add(i0, i1), i1, d0, d1, m, x, acc);
    } else {
        const i32v i = dot8<W::MAXW, W::ZERO != 0>(x.init, q, x.qs);
        add_q8<W>(i, i, d0, d1, m, x, acc);
    }
}

// the sums of N columns over one panel, of whose rows the first ones are written
template <int N> static inline void write_sums(const f32v * acc, float * const * y, int rows) {
    for (int c = 0; c < N; c++) {
        if (rows == LANES) {
            store(y[c], acc[c]);
        } else {
            store_n(y[c], acc[c], rows);
        }
    }
}

// y[c][row] = sum over the blocks, for the columns c < N of one tile and the rows of one panel
//   w: the panel; x: the tile [n_blocks*SUBS][N]; y: one pointer a column; rows: how many of the panel's rows to write
template <typename W, int N>
static void panel_q8(int64_t n_blocks, const uint8_t * w, const void * vx, float * const * y, int rows) {
    const q8_act * x = (const q8_act *) vx;

    f32v acc[N];
    for (int c = 0; c < N; c++) {
        acc[c] = zero_f32();
    }
    for (int64_t ib = 0; ib < n_blocks; ib++) {
        const W b(w);
        prefetch_block<W::BYTES>(w);
#pragma GCC unroll 8
        for (int j = 0; j < W::SUBS; j++) {
            u8v  q[8];
            f32v d0, d1, m;
            b.sub(j, q, d0, d1, m);
            if (N == 1 || LANES == 16 || (W::MAXW <= 15*W::TIMES && W::SUBS == 1)) {
#pragma GCC unroll 16
                for (int c = 0; c < N; c++) {
                    mad_q8<W>(q, d0, d1, m, x[c], acc[c]);
                }
            } else {
                // a loop: unrolled, the compiler would keep sums in registers that the weights need
#pragma GCC unroll 1
                for (int c = 0; c < N; c++) {
                    mad_q8<W>(q, d0, d1, m, x[c], acc[c]);
                }
            }
            x += N;
        }
        w += W::BYTES;
    }
    write_sums<N>(acc, y, rows);
}

#ifdef GGML_INVARIANT_AMX

// ---- the same with the matrix unit (AMX): 32 weights of a panel's rows are tile 0, the values of N columns tile 1, and their
// product, tile 2, holds the integer sums that dot8() gives. Integers: the same bits.

// tiles 0 and 3: weights, tile 1: values, tiles 2 and 4: sums
struct alignas(64) tile_config {
    uint8_t  palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16]; // of a row
    uint8_t  rows[16];

    // k: what is multiplied at once, in 4 bytes
    tile_config(int k, int n_cols) : bytes{ 4*LANES, (uint16_t) (4*k), 4*LANES, 4*LANES, 4*LANES },
        rows{ (uint8_t) k, (uint8_t) n_cols, (uint8_t) n_cols, (uint8_t) k, (uint8_t) n_cols } {}
};

// GCC's tile intrinsics do not tell the compiler which memory they read and write
template <typename T> static inline void is_read(const T & v) { __asm__ volatile ("" : : "m" (v)); }
template <typename T> static inline void is_written(T & v) { __asm__ volatile ("" : "=m" (v)); }

// the tiles of this thread are those for N columns while it lives; then they are what they were
class tile_scope {
    alignas(64) uint8_t before[64];
public:
    tile_scope(int k, int n_cols) {
        _tile_storeconfig(before);
        is_written(before);
        set(k, n_cols);
    }
    void set(int k, int n_cols) {
        const tile_config config(k, n_cols);
        is_read(config);
        _tile_loadconfig(&config);
    }
    ~tile_scope() {
        if (before[0] == 0) {
            _tile_release();
        } else {
            is_read(before);
            _tile_loadconfig(before);
        }
    }
    tile_scope(const tile_scope &) = delete;
    tile_scope & operator=(const tile_scope &) = delete;
};

// the product of 32 weights q of a panel's rows and the values of N columns; FIRST: whether tiles 0 and 2 are used, or 3 and 4
// (GCC's intrinsics take nothing but literals for them)
template <bool FIRST, bool SIGNED> static inline void multiply_tiles(const void * q, const q8_act * x, i32v * sum) {
    if (FIRST) {
        _tile_zero(2);
        _tile_loadd(0, q, 64);
        _tile_loadd(1, x->qs, sizeof(q8_act));
        if (SIGNED) {
            _tile_dpbssd(2, 1, 0);
        } else {
            _tile_dpbsud(2, 1, 0);
        }
        _tile_stored(2, sum, 64);
    } else {
        _tile_zero(4);
        _tile_loadd(3, q, 64);
        _tile_loadd(1, x->qs, sizeof(q8_act));
        if (SIGNED) {
            _tile_dpbssd(4, 1, 3);
        } else {
            _tile_dpbsud(4, 1, 3);
        }
        _tile_stored(4, sum, 64);
    }
}

// panel_q8() within a tile_scope(8, N), for weights with one scale for 32
//
// A tile does not see a store before it is in the cache, nor a vector what a tile stored. So each step is taken for several
// times 32 weights before the next one: weights apart (if they do not lie ready), tiles multiplied, sums added. Each fetches its
// share of what comes AHEAD, so that reading goes on all the while.
template <typename W, int N>
static void panel_q8_tiles(int64_t n_blocks, const uint8_t * w, const void * vx, float * const * y, int rows) {
    constexpr bool IN_PLACE = W::TILES == tile_weights::IN_PLACE, SIGNED = W::TILES != tile_weights::AS_VECTORS;
    constexpr int  SPAN = 8, BLOCKS = SPAN/W::SUBS, STEPS = IN_PLACE ? 2 : 3;

    alignas(64) u8v  q[IN_PLACE ? 1 : SPAN][8];
    alignas(64) i32v i[SPAN][N];

    const q8_act * x = (const q8_act *) vx;

    f32v acc[N];
    for (int c = 0; c < N; c++) {
        acc[c] = zero_f32();
    }
    // step's share of the lines that lie AHEAD of sub j of the block at w
    const auto fetch = [](const uint8_t * w, int j, int step) __attribute__((always_inline)) {
        constexpr int LINES = (W::BYTES + 63)/64, PARTS = STEPS*W::SUBS;
        const int part = STEPS*j + step;
        for (int l = LINES*part/PARTS; l < LINES*(part + 1)/PARTS; l++) {
            prefetch(w + AHEAD + 64*l);
        }
    };
    for (int64_t ib = 0; ib < n_blocks; ib += BLOCKS) {
        const int n = (int) std::min<int64_t>(BLOCKS, n_blocks - ib);
        if constexpr (!IN_PLACE) {
            for (int k = 0; k < n; k++) {
                const W b(w + k*W::BYTES);
#pragma GCC unroll 8
                for (int j = 0; j < W::SUBS; j++) {
                    fetch(w + k*W::BYTES, j, 0);
                    if constexpr (SIGNED) {
                        b.tile(q[k]);
                    } else {
                        f32v d0, d1, m;
                        b.sub(j, q[k*W::SUBS + j], d0, d1, m);
                    }
                }
            }
            is_read(q);
        }
        for (int k = 0; k < n; k++) {
#pragma GCC unroll 8
            for (int j = 0; j < W::SUBS; j++) {
                fetch(w + k*W::BYTES, j, STEPS - 2);
                const int    s  = k*W::SUBS + j;
                const void * qs;
                if constexpr (IN_PLACE) {
                    qs = W(w + k*W::BYTES).tile();
                } else {
                    qs = q[s];
                }
                if (s%2 == 0) {
                    multiply_tiles<true, SIGNED>(qs, x + s*N, i[s]);
                } else {
                    multiply_tiles<false, SIGNED>(qs, x + s*N, i[s]);
                }
            }
        }
        is_written(i);
        for (int k = 0; k < n; k++) {
            const W b(w);
#pragma GCC unroll 8
            for (int j = 0; j < W::SUBS; j++) {
                fetch(w, j, STEPS - 1);
                u8v  unused[8];
                f32v d0, d1, m;
                b.sub(j, unused, d0, d1, m);
#pragma GCC unroll 16
                for (int c = 0; c < N; c++) {
                    const i32v sum = i[k*W::SUBS + j][c];
                    const i32v s   = !SIGNED && W::ZERO != 0 ? add(sum, set1(x[c].init[0])) : sum;
                    add_q8<W>(s, s, d0, d1, m, x[c], acc[c]);
                }
                x += N;
            }
            w += W::BYTES;
        }
    }
    write_sums<N>(acc, y, rows);
}

#endif // GGML_INVARIANT_AMX

// ---- floating point weights: two vectors of rows

// Columns whose sums the registers hold, and bytes of a panel that stay in the first level cache while the columns pass, so
// many at a time. Each pass fetches its share of what comes AHEAD, so that reading goes on all the while.
#if defined(GGML_INVARIANT_AVX512)
static constexpr int FLOAT_GROUP = 12;
#elif defined(GGML_INVARIANT_AVX2)
static constexpr int FLOAT_GROUP = 4;
#else
static constexpr int FLOAT_GROUP = 6;
#endif
static constexpr int FLOAT_STRIP = 3072;

// the columns c < G of a tile that is N wide; n blocks; a0, a1: their sums so far; PASSES: how many such groups pass
template <typename W, int N, int G, int PASSES>
static inline void float_mad(int64_t n, const uint8_t * w, const typename W::act * x, f32v * a0, f32v * a1, const uint8_t * ahead) {
    constexpr int BLOCKS = std::max(1, PASSES*64/W::BYTES);  // between two fetches
    constexpr int LINES  = std::max(1, W::BYTES/(PASSES*64)); // that are fetched

    const auto mad = [&]() __attribute__((always_inline)) {
        const W b(w);
#pragma GCC unroll 2
        for (int p = 0; p < W::PHASES; p++) {
            const auto w0 = b.get0(p), w1 = b.get1(p);
#pragma GCC unroll 16
            for (int c = 0; c < G; c++) {
                W::mad(w0, w1, x[c], p, a0[c], a1[c]);
            }
        }
        w += W::BYTES;
        x += N;
    };
    int64_t ib = 0;
    for (; ib + BLOCKS <= n; ib += BLOCKS) {
        for (int i = 0; i < LINES; i++, ahead += 64) {
            prefetch(ahead);
        }
#pragma GCC unroll 8
        for (int i = 0; i < BLOCKS; i++) {
            mad();
        }
    }
    for (; ib < n; ib++) {
        mad();
    }
}

// the same, with sums in memory: [G][2*LANES]
template <typename W, int N, int G, int PASSES>
static inline void float_pass(int64_t n, const uint8_t * w, const typename W::act * x, float * sum, const uint8_t * ahead) {
    f32v a0[G], a1[G];
    for (int c = 0; c < G; c++) {
        a0[c] = load_f32(sum + c*2*LANES);
        a1[c] = load_f32(sum + c*2*LANES + LANES);
    }
    float_mad<W, N, G, PASSES>(n, w, x, a0, a1, ahead);
    for (int c = 0; c < G; c++) {
        store(sum + c*2*LANES,         a0[c]);
        store(sum + c*2*LANES + LANES, a1[c]);
    }
}

// a column's sums over one panel, of whose rows the first ones are written
static inline void write_rows(f32v a0, f32v a1, float * y, int rows) {
    if (rows == 2*LANES) {
        store(y,         a0);
        store(y + LANES, a1);
    } else {
        float t[2*LANES];
        store(t,         a0);
        store(t + LANES, a1);
        memcpy(y, t, rows*sizeof(float));
    }
}

template <typename W, int N>
static void panel_float(int64_t n_blocks, const uint8_t * w, const void * vx, float * const * y, int rows) {
    constexpr int PASSES = (N + FLOAT_GROUP - 1)/FLOAT_GROUP;
    constexpr int G      = (N + PASSES - 1)/PASSES; // all groups but the last ones, which may be one column narrower
    constexpr int WIDE   = N - PASSES*(G - 1);      // groups of G columns

    const typename W::act * x = (const typename W::act *) vx;

    // what fits the registers by itself needs no strips
    if constexpr (PASSES == 1) {
        f32v a0[N], a1[N];
        for (int c = 0; c < N; c++) {
            a0[c] = a1[c] = zero_f32();
        }
        float_mad<W, N, N, 1>(n_blocks, w, x, a0, a1, w + AHEAD);
        for (int c = 0; c < N; c++) {
            write_rows(a0[c], a1[c], y[c], rows);
        }
        return;
    }

    alignas(64) float sum[N*2*LANES] = {};

    constexpr int64_t strip = FLOAT_STRIP/W::BYTES;
    for (int64_t ib = 0; ib < n_blocks; ib += strip) {
        const int64_t n     = std::min(strip, n_blocks - ib);
        const int64_t share = n*W::BYTES/PASSES;
        for (int p = 0; p < PASSES; p++) {
            const uint8_t * ahead = w + AHEAD + p*share;
            if (p < WIDE) {
                float_pass<W, N, G, PASSES>(n, w, x + p*G, sum + p*G*2*LANES, ahead);
            } else if constexpr (G > 1 && WIDE < PASSES) {
                const int c = WIDE*G + (p - WIDE)*(G - 1);
                float_pass<W, N, G - 1, PASSES>(n, w, x + c, sum + c*2*LANES, ahead);
            }
        }
        w += n*W::BYTES;
        x += n*N;
    }
    for (int c = 0; c < N; c++) {
        write_rows(load_f32(sum + c*2*LANES), load_f32(sum + c*2*LANES + LANES), y[c], rows);
    }
}

struct w_f32 {
    using block = float;
    using act   = float;
    static constexpr int ROWS = 2*LANES, BLOCK = 1, BYTES = ROWS*sizeof(block), PHASES = 1;

    static void pack(uint8_t * dst, int r, const block & b) { ((float *) dst)[r] = b; }

    const f32v w0, w1;
    inline explicit w_f32(const uint8_t * w) : w0(load_f32((const float *) w)), w1(load_f32((const float *) w + LANES)) {}
    inline f32v get0(int) const { return w0; }
    inline f32v get1(int) const { return w1; }
    static inline void mad(f32v w0, f32v w1, float x, int, f32v & a0, f32v & a1) {
        a0 = fma(w0, set1(x), a0);
        a1 = fma(w1, set1(x), a1);
    }
};

struct w_f16 {
    using block = ggml_half;
    using act   = float;
    static constexpr int ROWS = 2*LANES, BLOCK = 1, BYTES = ROWS*sizeof(block), PHASES = 1;

    static void pack(uint8_t * dst, int r, const block & b) { ((ggml_half *) dst)[r] = b; }

    const f32v w0, w1;
    inline explicit w_f16(const uint8_t * w) : w0(load_f16(w)), w1(load_f16(w + 2*LANES)) {}
    inline f32v get0(int) const { return w0; }
    inline f32v get1(int) const { return w1; }
    static inline void mad(f32v w0, f32v w1, float x, int, f32v & a0, f32v & a1) {
        a0 = fma(w0, set1(x), a0);
        a1 = fma(w1, set1(x), a1);
    }
};

struct bf16_pair { ggml_bf16_t v[2]; };
struct f32_pair  { float v[2]; };

struct w_bf16 {
    using block = bf16_pair;
    static constexpr int ROWS = 2*LANES, BLOCK = 2, BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) { ((block *) dst)[r] = b; }

    const i32v w0, w1;
    inline explicit w_bf16(const uint8_t * w) : w0(load_i32v(w)), w1(load_i32v(w + 4*LANES)) {}

#ifdef GGML_INVARIANT_DPBF16
    using act = bf16_pair;
    static constexpr int PHASES = 1;
    inline i32v get0(int) const { return w0; }
    inline i32v get1(int) const { return w1; }
    static inline void mad(i32v w0, i32v w1, const act & x, int, f32v & a0, f32v & a1) {
        const uint32_t v = (uint32_t) load_i32(&x);
        a0 = dot2_bf16(a0, w0, v);
        a1 = dot2_bf16(a1, w1, v);
    }
#else
    using act = f32_pair;
    static constexpr int PHASES = 2;
    inline f32v get0(int p) const { return p == 0 ? low(w0) : high(w0); }
    inline f32v get1(int p) const { return p == 0 ? low(w1) : high(w1); }
    static inline void mad(f32v w0, f32v w1, const act & x, int p, f32v & a0, f32v & a1) {
        a0 = fma(w0, set1(x.v[p]), a0);
        a1 = fma(w1, set1(x.v[p]), a1);
    }
    static inline f32v as_f32(i32v v) { f32v f; memcpy(&f, &v, sizeof(f)); return f; }
    static inline f32v low(i32v v) { return as_f32(shl32_16(v)); }
    static inline f32v high(i32v v) { return as_f32(and_(v, set1((int32_t) 0xffff0000))); }
    static inline i32v shl32_16(i32v v) { return shl32<16>(v); }
#endif
};

#ifdef GGML_INVARIANT_AMX_BF16

// BF16 in the matrix unit, which adds up in an order of its own: for every number of columns, then
struct w_bf16_tiles {
    using block = bf16_pair;
    struct act { ggml_bf16_t v[32]; };
    static constexpr int ROWS = 2*LANES, BLOCK = 2, BYTES = ROWS*sizeof(block);

    static void pack(uint8_t * dst, int r, const block & b) { ((block *) dst)[r] = b; }
};

static inline void add_bf16_tiles(const uint8_t * w, const w_bf16_tiles::act * x) {
    _tile_loadd(1, x, 64);
    _tile_loadd(0, w, w_bf16_tiles::BYTES);
    _tile_dpbf16ps(2, 1, 0);
    _tile_loadd(3, w + 64, w_bf16_tiles::BYTES);
    _tile_dpbf16ps(4, 1, 3);
}

// y[c][row] within a tile_scope(16, N); x: the tile [n_blocks/16, rounded up][N], zeros past the end of a row
template <int N>
static void panel_bf16_tiles(int64_t n_blocks, const uint8_t * w, const void * vx, float * const * y, int rows) {
    constexpr int PAIRS = 16, STEP = PAIRS*w_bf16_tiles::BYTES;

    const w_bf16_tiles::act * x = (const w_bf16_tiles::act *) vx;

    alignas(64) float sum[2][N][LANES];

    _tile_zero(2);
    _tile_zero(4);
    for (; n_blocks >= PAIRS; n_blocks -= PAIRS) {
        prefetch_block<STEP>(w);
        add_bf16_tiles(w, x);
        w += STEP;
        x += N;
    }
    if (n_blocks > 0) {
        alignas(64) uint8_t rest[STEP] = {};
        memcpy(rest, w, n_blocks*w_bf16_tiles::BYTES);
        is_read(rest);
        add_bf16_tiles(rest, x);
    }
    _tile_stored(2, sum[0], 64);
    _tile_stored(4, sum[1], 64);
    is_written(sum);
    for (int c = 0; c < N; c++) {
        memcpy(y[c], sum[0][c], std::min(rows, LANES)*sizeof(float));
        if (rows > LANES) {
            memcpy(y[c] + LANES, sum[1][c], (rows - LANES)*sizeof(float));
        }
    }
}

#endif // GGML_INVARIANT_AMX_BF16

template <typename W> static inline void convert_act(const float * x, float * a) { *a = *x; }
template <typename W> static inline void convert_act(const float * x, f32_pair * a) { a->v[0] = x[0]; a->v[1] = x[1]; }

// n_units units of a column, of which n values are left; a: [n_units], stride apart
template <typename W> static inline void convert_acts(const float * x, typename W::act * a, int64_t stride, int64_t n_units, int64_t /*n*/) {
    if constexpr (std::is_same_v<typename W::act, q8_act>) {
        for (int64_t u0 = 0; u0 < n_units; u0 += 4) {
            const float * src[4];
            int8_t *      qs[4];
            float         d[4];
            int32_t       sum[4][2];
            for (int i = 0; i < 4; i++) {
                const int64_t u = std::min(u0 + i, n_units - 1); // the last one again, if there are no four
                src[i] = x + u*32;
                qs[i]  = a[u*stride].qs;
            }
            quantize4x32(src, qs, d, sum);
            for (int i = 0; i < std::min<int64_t>(4, n_units - u0); i++) {
                q8_act & act = a[(u0 + i)*stride];
                act.d       = d[i]*(1.0f/W::TIMES);
                act.s       = d[i]*(float) (sum[i][0] + sum[i][1]);
                act.init[0] = -W::ZERO*(W::TWO_SCALES ? sum[i][0] : sum[i][0] + sum[i][1]);
                act.init[1] = -W::ZERO*sum[i][1];
            }
        }
    } else {
        for (int64_t u = 0; u < n_units; u++) {
            convert_act<W>(x + u*W::BLOCK, a + u*stride);
        }
    }
}

#ifdef GGML_INVARIANT_DPBF16
template <> inline void convert_acts<w_bf16>(const float * x, bf16_pair * a, int64_t stride, int64_t n_units, int64_t /*n*/) {
    for (int64_t u0 = 0; u0 < n_units; u0 += LANES) {
        const int n = (int) std::min<int64_t>(LANES, n_units - u0);
        bf16_pair t[LANES];
        to_bf16(x + 2*u0, 2*n, t);
        for (int u = 0; u < n; u++) {
            a[(u0 + u)*stride] = t[u];
        }
    }
}
#endif

// LANES units of a column, each of 4 bytes, as a vector
template <typename W> static inline f32v act_units(const float * x) {
#ifdef GGML_INVARIANT_DPBF16
    if constexpr (std::is_same_v<W, w_bf16>) {
        bf16_pair t[LANES];
        to_bf16(x, 2*LANES, t);
        return load_f32((const float *) t);
    }
#endif
    return load_f32(x);
}

// the same for all n columns of a tile at once, where a unit takes 4 bytes: their units lie next to each other, so that a column by itself
// would be written 4 bytes at a time. x: one pointer a column; a: [n_units][n]
template <typename W> static inline void convert_tile(const float * const * x, typename W::act * a, int64_t n, int64_t n_units) {
    int64_t u0 = 0;
    for (; u0 + LANES <= n_units; u0 += LANES) {
        for (int64_t c0 = 0; c0 < n; c0 += LANES) {
            const int m = (int) std::min<int64_t>(LANES, n - c0);
            f32v      v[LANES];
            for (int c = 0; c < LANES; c++) {
                v[c] = c < m ? act_units<W>(x[c0 + c] + u0*W::BLOCK) : zero_f32();
            }
            transpose(v);
            for (int u = 0; u < LANES; u++) {
                store_n((float *) (a + (u0 + u)*n + c0), v[u], m);
            }
        }
    }
    for (int64_t c = 0; c < n && u0 < n_units; c++) {
        convert_acts<W>(x[c] + u0*W::BLOCK, a + u0*n + c, n, n_units - u0, (n_units - u0)*W::BLOCK);
    }
}

#ifdef GGML_INVARIANT_AMX_BF16
template <> inline void convert_acts<w_bf16_tiles>(const float * x, w_bf16_tiles::act * a, int64_t stride, int64_t n_units, int64_t n) {
    for (int64_t u = 0; u < n_units; u++) {
        to_bf16(x + 32*u, (int) std::min<int64_t>(32, n - 32*u), a[u*stride].v);
    }
}
#endif

} // namespace ggml::cpu::invariant

#endif // GGML_INVARIANT
