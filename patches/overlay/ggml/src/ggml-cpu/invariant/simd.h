#pragma once

// The vectors that the batch-invariant kernels are written in: LANES floats or 32-bit integers, and LANES*4 bytes.
// One lane is one row of a weight panel. Widths: 16 lanes with AVX-512 VNNI, 8 with AVX2 and with NEON (two registers).
//
// dot4() is the integer heart: sum[lane] += sum over the four bytes of the lane of w*x, exactly, for weights of at
// most MAXW in magnitude. Where the hardware multiplies unsigned by signed bytes (VNNI), signed weights are stored
// with an offset of 128, and the sum starts at -128 times the sum of x.

#if defined(__GNUC__) && !defined(__clang__)
// GCC takes the undefined vectors inside its own intrinsics for mistakes (its bug 105593)
#    pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#    pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include "ggml-impl.h"
#include "simd-mappings.h"

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)
#    define GGML_INVARIANT_AVX512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#    define GGML_INVARIANT_AVX2
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    define GGML_INVARIANT_NEON
#endif

#if defined(GGML_INVARIANT_AVX512) || defined(GGML_INVARIANT_AVX2) || defined(GGML_INVARIANT_NEON)
#    define GGML_INVARIANT
#endif

#if defined(GGML_INVARIANT_AVX512) && defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__linux__)
#    define GGML_INVARIANT_AMX
#    if defined(__AMX_BF16__)
#        define GGML_INVARIANT_AMX_BF16
#    endif
#endif

#if defined(GGML_INVARIANT_AVX512) || defined(GGML_INVARIANT_AVX2)
#    include <immintrin.h>
#endif
#if defined(GGML_INVARIANT_NEON)
#    include <arm_neon.h>
#endif

namespace ggml::cpu::invariant {

static inline int32_t load_i32(const void * p) {
    int32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void prefetch(const void * p) {
    __builtin_prefetch(p, 0, 3);
}

#if defined(GGML_INVARIANT_AVX512)

constexpr int  LANES       = 16;
constexpr bool W_IS_SIGNED = false; // dot4() takes unsigned weights

using f32v = __m512;
using i32v = __m512i;
using u8v  = __m512i;

static inline f32v zero_f32() { return _mm512_setzero_ps(); }
static inline f32v set1(float v) { return _mm512_set1_ps(v); }
static inline i32v set1(int32_t v) { return _mm512_set1_epi32(v); }
static inline f32v load_f32(const float * p) { return _mm512_loadu_ps(p); }
static inline void store(float * p, f32v v) { _mm512_storeu_ps(p, v); }
static inline void store_n(float * p, f32v v, int n) { _mm512_mask_storeu_ps(p, (__mmask16) ((1u << n) - 1), v); }
static inline f32v load_f16(const void * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }
static inline f32v load_bf16(const void * p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) p)), 16)); }
static inline i32v load_i32v(const void * p) { return _mm512_loadu_si512(p); }
static inline u8v  load_u8(const void * p) { return _mm512_loadu_si512(p); }
static inline f32v load_i8_as_f32(const void * p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p))); }
static inline f32v to_f32(i32v v) { return _mm512_cvtepi32_ps(v); }
static inline f32v mul(f32v a, f32v b) { return _mm512_mul_ps(a, b); }
static inline f32v add(f32v a, f32v b) { return _mm512_add_ps(a, b); }
static inline f32v max(f32v a, f32v b) { return _mm512_max_ps(a, b); }
static inline f32v fma(f32v a, f32v b, f32v c) { return _mm512_fmadd_ps(a, b, c); }
static inline i32v add(i32v a, i32v b) { return _mm512_add_epi32(a, b); }
static inline i32v and_(i32v a, i32v b) { return _mm512_and_si512(a, b); }
static inline i32v or_(i32v a, i32v b) { return _mm512_or_si512(a, b); }
static inline i32v shr32(i32v a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
template <int n> static inline i32v shr32(i32v a) { return _mm512_srli_epi32(a, n); }
template <int n> static inline i32v shl32(i32v a) { return _mm512_slli_epi32(a, n); }
template <int n> static inline u8v shr16(u8v a) { return _mm512_srli_epi16(a, n); }
template <int n> static inline u8v shl16(u8v a) { return _mm512_slli_epi16(a, n); }
static inline u8v set1_u8(uint8_t v) { return _mm512_set1_epi8((char) v); }
static inline u8v lookup16(const uint8_t * table, u8v index) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) table)), index);
}
// (a & m) | b
static inline u8v and_or(u8v a, u8v m, u8v b) { return _mm512_ternarylogic_epi32(a, m, b, 0xEA); }
// (a & m) ^ b
static inline u8v and_xor(u8v a, u8v m, u8v b) { return _mm512_ternarylogic_epi32(a, m, b, 0x6A); }
static inline u8v xor_(u8v a, u8v b) { return _mm512_xor_si512(a, b); }

template <int MAXW> static inline i32v dot4(i32v sum, const u8v * w, const int8_t * x) {
    for (int g = 0; g < 4; g++) {
        sum = _mm512_dpbusd_epi32(sum, w[g], _mm512_set1_epi32(load_i32(x + 4*g)));
    }
    return sum;
}

// the sums over the lanes of LANES vectors, each taken in the order of sum_four() and sum_fours()
static inline f32v sum_lanes(const f32v * v) {
    f32v a[8], b[4], c[2];
    for (int i = 0; i < 8; i++) {
        a[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2*i], v[2*i + 1]), _mm512_unpackhi_ps(v[2*i], v[2*i + 1]));
    }
    for (int i = 0; i < 4; i++) {
        const __m512d lo = _mm512_castps_pd(a[2*i]), hi = _mm512_castps_pd(a[2*i + 1]);
        b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi)), _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi)));
    }
    for (int i = 0; i < 2; i++) {
        c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2*i], b[2*i + 1], 0x44), _mm512_shuffle_f32x4(b[2*i], b[2*i + 1], 0xEE));
    }
    return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xDD));
}

// v[i] lane j <-> v[j] lane i
static inline void transpose(f32v * v) {
    f32v a[16];
    for (int i = 0; i < 8; i++) {
        a[2*i]     = _mm512_unpacklo_ps(v[2*i], v[2*i + 1]);
        a[2*i + 1] = _mm512_unpackhi_ps(v[2*i], v[2*i + 1]);
    }
    for (int i = 0; i < 4; i++) { // v[4*i + j]: of the rows 4*i ..., in each quarter the column j of that quarter
        const __m512d a0 = _mm512_castps_pd(a[4*i]), a1 = _mm512_castps_pd(a[4*i + 1]), a2 = _mm512_castps_pd(a[4*i + 2]), a3 = _mm512_castps_pd(a[4*i + 3]);
        v[4*i]     = _mm512_castpd_ps(_mm512_unpacklo_pd(a0, a2));
        v[4*i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a0, a2));
        v[4*i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(a1, a3));
        v[4*i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(a1, a3));
    }
    for (int j = 0; j < 4; j++) {
        const f32v lo0 = _mm512_shuffle_f32x4(v[j], v[4 + j], 0x88), hi0 = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0x88);
        const f32v lo1 = _mm512_shuffle_f32x4(v[j], v[4 + j], 0xDD), hi1 = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0xDD);
        a[j]      = _mm512_shuffle_f32x4(lo0, hi0, 0x88);
        a[4 + j]  = _mm512_shuffle_f32x4(lo1, hi1, 0x88);
        a[8 + j]  = _mm512_shuffle_f32x4(lo0, hi0, 0xDD);
        a[12 + j] = _mm512_shuffle_f32x4(lo1, hi1, 0xDD);
    }
    for (int i = 0; i < 16; i++) {
        v[i] = a[i];
    }
}

// the largest of each of four pairs of vectors: lane i of the result is that of pair i/4
static inline __m512 max_of_pairs(const __m512 * v) {
    __m512 m[4];
    for (int i = 0; i < 4; i++) {
        m[i] = _mm512_max_ps(_mm512_abs_ps(v[2*i]), _mm512_abs_ps(v[2*i + 1]));
    }
    for (int i = 0; i < 2; i++) {
        m[i] = _mm512_max_ps(_mm512_shuffle_f32x4(m[2*i], m[2*i + 1], 0x44), _mm512_shuffle_f32x4(m[2*i], m[2*i + 1], 0xEE));
    }
    __m512 r = _mm512_max_ps(_mm512_shuffle_f32x4(m[0], m[1], 0x88), _mm512_shuffle_f32x4(m[0], m[1], 0xDD));
    r = _mm512_max_ps(r, _mm512_permute_ps(r, 0x4E));
    return _mm512_max_ps(r, _mm512_permute_ps(r, 0xB1));
}

// four times 32 floats to 8-bit integers of scale d; their sums, 16 by 16
static inline void quantize4x32(const float * const * x, int8_t * const * q, float * d, int32_t (* sum)[2]) {
    __m512 v[8];
    for (int i = 0; i < 4; i++) {
        v[2*i]     = _mm512_loadu_ps(x[i]);
        v[2*i + 1] = _mm512_loadu_ps(x[i] + 16);
    }
    const __m128 amax = _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, max_of_pairs(v)));
    const __m128 max8 = _mm_set1_ps(127.0f);
    _mm_storeu_ps(d, _mm_div_ps(amax, max8));
    const __m512 id = _mm512_castps128_ps512(_mm_maskz_div_ps(_mm_cmp_ps_mask(amax, _mm_setzero_ps(), _CMP_GT_OQ), max8, amax));

    __m512i n[2];
    for (int i = 0; i < 2; i++) {
        __m512i w[4];
        for (int j = 0; j < 4; j++) {
            w[j] = _mm512_cvtps_epi32(_mm512_mul_ps(v[4*i + j], _mm512_permutexvar_ps(_mm512_set1_epi32(2*i + j/2), id)));
        }
        // in each quarter: the quarter's values of w[0], of w[1], of w[2], of w[3]
        const __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(w[0], w[1]), _mm512_packs_epi32(w[2], w[3]));
        n[i] = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), packed);
        _mm256_storeu_si256((__m256i *) q[2*i],     _mm512_castsi512_si256(n[i]));
        _mm256_storeu_si256((__m256i *) q[2*i + 1], _mm512_extracti64x4_epi64(n[i], 1));
    }
    const __m512i ones = _mm512_set1_epi8(1);
    const __m512i s0 = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, n[0]);
    const __m512i s1 = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, n[1]);
    const __m512i t  = _mm512_add_epi32(_mm512_unpacklo_epi32(s0, s1), _mm512_unpackhi_epi32(s0, s1));
    const __m512i u  = _mm512_add_epi32(t, _mm512_shuffle_epi32(t, (_MM_PERM_ENUM) 0x4E));
    // quarter i: the sum of quarter i of n[0], that of n[1]
    const __m512i r = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0), u);
    _mm256_storeu_si256((__m256i *) sum, _mm512_castsi512_si256(r));
}
#define GGML_INVARIANT_QUANTIZE4

#if defined(__AVX512BF16__)
#    define GGML_INVARIANT_DPBF16
// n <= 2*LANES floats, rounded to nearest; dst has room for 2*LANES
static inline void to_bf16(const float * x, int n, void * dst) {
    const __mmask32 m = n == 32 ? 0xffffffffu : (1u << n) - 1;
    const __m512 lo = _mm512_maskz_loadu_ps((__mmask16) m, x), hi = _mm512_maskz_loadu_ps((__mmask16) (m >> 16), x + 16);
    _mm512_storeu_si512(dst, (__m512i) _mm512_cvtne2ps_pbh(hi, lo));
}
static inline f32v dot2_bf16(f32v sum, i32v w, uint32_t x) {
    return _mm512_dpbf16_ps(sum, (__m512bh) w, (__m512bh) _mm512_set1_epi32((int32_t) x));
}
#endif

#elif defined(GGML_INVARIANT_AVX2)

constexpr int  LANES = 8;
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
constexpr bool W_IS_SIGNED = false;
#else
constexpr bool W_IS_SIGNED = true;
#endif

using f32v = __m256;
using i32v = __m256i;
using u8v  = __m256i;

static inline f32v zero_f32() { return _mm256_setzero_ps(); }
static inline f32v set1(float v) { return _mm256_set1_ps(v); }
static inline i32v set1(int32_t v) { return _mm256_set1_epi32(v); }
static inline f32v load_f32(const float * p) { return _mm256_loadu_ps(p); }
static inline void store(float * p, f32v v) { _mm256_storeu_ps(p, v); }
static inline void store_n(float * p, f32v v, int n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane), v);
}
static inline f32v load_f16(const void * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }
static inline f32v load_bf16(const void * p) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *) p)), 16)); }
static inline i32v load_i32v(const void * p) { return _mm256_loadu_si256((const __m256i *) p); }
static inline u8v  load_u8(const void * p) { return _mm256_loadu_si256((const __m256i *) p); }
static inline f32v load_i8_as_f32(const void * p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p))); }
static inline f32v to_f32(i32v v) { return _mm256_cvtepi32_ps(v); }
static inline f32v mul(f32v a, f32v b) { return _mm256_mul_ps(a, b); }
static inline f32v add(f32v a, f32v b) { return _mm256_add_ps(a, b); }
static inline f32v max(f32v a, f32v b) { return _mm256_max_ps(a, b); }
static inline f32v fma(f32v a, f32v b, f32v c) { return _mm256_fmadd_ps(a, b, c); }
static inline i32v add(i32v a, i32v b) { return _mm256_add_epi32(a, b); }
static inline i32v and_(i32v a, i32v b) { return _mm256_and_si256(a, b); }
static inline i32v or_(i32v a, i32v b) { return _mm256_or_si256(a, b); }
static inline i32v shr32(i32v a, int n) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(n)); }
template <int n> static inline i32v shr32(i32v a) { return _mm256_srli_epi32(a, n); }
template <int n> static inline i32v shl32(i32v a) { return _mm256_slli_epi32(a, n); }
template <int n> static inline u8v shr16(u8v a) { return _mm256_srli_epi16(a, n); }
template <int n> static inline u8v shl16(u8v a) { return _mm256_slli_epi16(a, n); }
static inline u8v set1_u8(uint8_t v) { return _mm256_set1_epi8((char) v); }
static inline u8v lookup16(const uint8_t * table, u8v index) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) table)), index);
}
static inline u8v and_or(u8v a, u8v m, u8v b) { return _mm256_or_si256(_mm256_and_si256(a, m), b); }

template <int MAXW> static inline i32v dot4(i32v sum, const u8v * w, const int8_t * x) {
#if defined(__AVXVNNI__)
    for (int g = 0; g < 4; g++) {
        sum = _mm256_dpbusd_avx_epi32(sum, w[g], _mm256_set1_epi32(load_i32(x + 4*g)));
    }
    return sum;
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
    for (int g = 0; g < 4; g++) {
        sum = _mm256_dpbusd_epi32(sum, w[g], _mm256_set1_epi32(load_i32(x + 4*g)));
    }
    return sum;
#else
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i p[4];
    for (int g = 0; g < 4; g++) {
        const __m256i xv = _mm256_set1_epi32(load_i32(x + 4*g));
        // |w| * sign(w)*x: at most 2*127*127, which 16 bits hold; weights up to 63 are not negative here
        p[g] = MAXW > 63 ? _mm256_maddubs_epi16(_mm256_abs_epi8(w[g]), _mm256_sign_epi8(xv, w[g]))
                         : _mm256_maddubs_epi16(w[g], xv);
    }
    if (MAXW <= 31) { // 4 * 2*31*127 fits in 16 bits
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(_mm256_add_epi16(p[0], p[1]), _mm256_add_epi16(p[2], p[3])), ones));
    }
    if (MAXW <= 63) { // 2 * 2*63*127 does
        return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(_mm256_add_epi16(p[0], p[1]), ones),
                                                      _mm256_madd_epi16(_mm256_add_epi16(p[2], p[3]), ones)));
    }
    for (int g = 0; g < 4; g++) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(p[g], ones));
    }
    return sum;
#endif
}

// the same for 32 weights at once, see below
#if !defined(__AVXVNNI__) && !(defined(__AVX512VNNI__) && defined(__AVX512VL__))
#    define GGML_INVARIANT_DOT8
template <int MAXW, bool OFFSET> static inline i32v dot8(const int32_t * init, const u8v * w, const int8_t * x) {
    if (MAXW > 15) {
        const i32v sum = dot4<MAXW>(OFFSET ? set1(init[0]) : _mm256_setzero_si256(), w, x);
        return dot4<MAXW>(sum, w + 4, x + 16);
    }
    // 8 * 2*15*127 fits in 16 bits
    __m256i p[8];
    for (int g = 0; g < 8; g++) {
        p[g] = _mm256_maddubs_epi16(w[g], _mm256_set1_epi32(load_i32(x + 4*g)));
    }
    for (int n = 4; n > 0; n /= 2) {
        for (int g = 0; g < n; g++) {
            p[g] = _mm256_add_epi16(p[g], p[g + n]);
        }
    }
    const __m256i sum = _mm256_madd_epi16(p[0], _mm256_set1_epi16(1));
    return OFFSET ? _mm256_add_epi32(sum, _mm256_set1_epi32(init[0])) : sum;
}
#endif

static inline f32v sum_lanes(const f32v * v) {
    f32v a[4], b[2];
    for (int i = 0; i < 4; i++) {
        a[i] = _mm256_add_ps(_mm256_unpacklo_ps(v[2*i], v[2*i + 1]), _mm256_unpackhi_ps(v[2*i], v[2*i + 1]));
    }
    for (int i = 0; i < 2; i++) {
        const __m256d lo = _mm256_castps_pd(a[2*i]), hi = _mm256_castps_pd(a[2*i + 1]);
        b[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(lo, hi)), _mm256_castpd_ps(_mm256_unpackhi_pd(lo, hi)));
    }
    return _mm256_add_ps(_mm256_permute2f128_ps(b[0], b[1], 0x20), _mm256_permute2f128_ps(b[0], b[1], 0x31));
}

static inline void transpose(f32v * v) {
    f32v a[8];
    for (int i = 0; i < 4; i++) {
        a[2*i]     = _mm256_unpacklo_ps(v[2*i], v[2*i + 1]);
        a[2*i + 1] = _mm256_unpackhi_ps(v[2*i], v[2*i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        const __m256d a0 = _mm256_castps_pd(a[4*i]), a1 = _mm256_castps_pd(a[4*i + 1]), a2 = _mm256_castps_pd(a[4*i + 2]), a3 = _mm256_castps_pd(a[4*i + 3]);
        v[4*i]     = _mm256_castpd_ps(_mm256_unpacklo_pd(a0, a2));
        v[4*i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a0, a2));
        v[4*i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(a1, a3));
        v[4*i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(a1, a3));
    }
    for (int j = 0; j < 4; j++) {
        a[j]     = _mm256_permute2f128_ps(v[j], v[4 + j], 0x20);
        a[4 + j] = _mm256_permute2f128_ps(v[j], v[4 + j], 0x31);
    }
    for (int i = 0; i < 8; i++) {
        v[i] = a[i];
    }
}

static inline float quantize32(const float * x, int8_t * q, int32_t * sum) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 v[4], m = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8*i);
        m    = _mm256_max_ps(m, _mm256_andnot_ps(sign, v[i]));
    }
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    m4 = _mm_max_ss(m4, _mm_movehdup_ps(m4));
    const float amax = _mm_cvtss_f32(m4);
    const __m256 id = _mm256_set1_ps(amax > 0.0f ? 127.0f/amax : 0.0f);
    __m256i n[4];
    for (int i = 0; i < 4; i++) {
        n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], id));
    }
    for (int h = 0; h < 2; h++) {
        const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(n[2*h], n[2*h + 1]), 0xD8);
        _mm_storeu_si128((__m128i *) (q + 16*h), _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
        const __m256i s8 = _mm256_add_epi32(n[2*h], n[2*h + 1]);
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
        s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
        sum[h] = _mm_cvtsi128_si32(s) + _mm_extract_epi32(s, 1);
    }
    return amax/127.0f;
}

#elif defined(GGML_INVARIANT_NEON)

constexpr int  LANES       = 8;
constexpr bool W_IS_SIGNED = true;

struct f32v { float32x4_t a, b; };
struct i32v { int32x4_t   a, b; };
using u8v = i32v;

static inline int8x16_t   s8(int32x4_t v) { return vreinterpretq_s8_s32(v); }
static inline uint8x16_t  u8(int32x4_t v) { return vreinterpretq_u8_s32(v); }
static inline int32x4_t   i32(uint8x16_t v) { return vreinterpretq_s32_u8(v); }

static inline f32v zero_f32() { return { vdupq_n_f32(0), vdupq_n_f32(0) }; }
static inline f32v set1(float v) { return { vdupq_n_f32(v), vdupq_n_f32(v) }; }
static inline i32v set1(int32_t v) { return { vdupq_n_s32(v), vdupq_n_s32(v) }; }
static inline f32v load_f32(const float * p) { return { vld1q_f32(p), vld1q_f32(p + 4) }; }
static inline void store(float * p, f32v v) { vst1q_f32(p, v.a); vst1q_f32(p + 4, v.b); }
static inline void store_n(float * p, f32v v, int n) {
    float t[8];
    store(t, v);
    memcpy(p, t, n*sizeof(float));
}
static inline f32v load_f16(const void * p) {
    const float16x8_t h = vreinterpretq_f16_u16(vld1q_u16((const uint16_t *) p));
    return { vcvt_f32_f16(vget_low_f16(h)), vcvt_f32_f16(vget_high_f16(h)) };
}
static inline f32v load_bf16(const void * p) {
    const uint16x8_t h = vld1q_u16((const uint16_t *) p);
    return { vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(h, 16)) };
}
static inline i32v load_i32v(const void * p) { return { vld1q_s32((const int32_t *) p), vld1q_s32((const int32_t *) p + 4) }; }
static inline u8v  load_u8(const void * p) { return { i32(vld1q_u8((const uint8_t *) p)), i32(vld1q_u8((const uint8_t *) p + 16)) }; }
static inline f32v load_i8_as_f32(const void * p) {
    const int16x8_t v = vmovl_s8(vld1_s8((const int8_t *) p));
    return { vcvtq_f32_s32(vmovl_s16(vget_low_s16(v))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(v))) };
}
static inline f32v to_f32(i32v v) { return { vcvtq_f32_s32(v.a), vcvtq_f32_s32(v.b) }; }
static inline f32v mul(f32v x, f32v y) { return { vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b) }; }
static inline f32v add(f32v x, f32v y) { return { vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b) }; }
static inline f32v max(f32v x, f32v y) { return { vmaxq_f32(x.a, y.a), vmaxq_f32(x.b, y.b) }; }
static inline f32v fma(f32v x, f32v y, f32v z) { return { vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b) }; }
static inline i32v add(i32v x, i32v y) { return { vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b) }; }
static inline i32v and_(i32v x, i32v y) { return { vandq_s32(x.a, y.a), vandq_s32(x.b, y.b) }; }
static inline i32v or_(i32v x, i32v y) { return { vorrq_s32(x.a, y.a), vorrq_s32(x.b, y.b) }; }
static inline int32x4_t shr(int32x4_t v, int n) { return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), vdupq_n_s32(-n))); }
static inline i32v shr32(i32v x, int n) { return { shr(x.a, n), shr(x.b, n) }; }
template <int n> static inline i32v shr32(i32v x) { return shr32(x, n); }
template <int n> static inline i32v shl32(i32v x) { return { vshlq_n_s32(x.a, n), vshlq_n_s32(x.b, n) }; }
// bytes, not 16-bit words: the users mask what the words would have brought from the neighbour
template <int n> static inline u8v shr16(u8v x) { return { i32(vshrq_n_u8(u8(x.a), n)), i32(vshrq_n_u8(u8(x.b), n)) }; }
template <int n> static inline u8v shl16(u8v x) { return { i32(vshlq_n_u8(u8(x.a), n)), i32(vshlq_n_u8(u8(x.b), n)) }; }
static inline u8v set1_u8(uint8_t v) { return { i32(vdupq_n_u8(v)), i32(vdupq_n_u8(v)) }; }
static inline u8v lookup16(const uint8_t * table, u8v index) {
    const uint8x16_t t = vld1q_u8(table);
    return { i32(vqtbl1q_u8(t, u8(index.a))), i32(vqtbl1q_u8(t, u8(index.b))) };
}
static inline u8v and_or(u8v x, u8v m, u8v y) { return or_(and_(x, m), y); }

// x0 + x2, x1 + x3, y0 + y2, y1 + y3
static inline float32x4_t add_halves(float32x4_t x, float32x4_t y) {
    return vaddq_f32(vcombine_f32(vget_low_f32(x), vget_low_f32(y)), vcombine_f32(vget_high_f32(x), vget_high_f32(y)));
}

static inline f32v sum_lanes(const f32v * v) {
    float32x4_t s[2];
    for (int i = 0; i < 2; i++) {
        const f32v * w = v + 4*i;
        const float32x4_t a = vpaddq_f32(add_halves(w[0].a, w[1].a), add_halves(w[2].a, w[3].a));
        const float32x4_t b = vpaddq_f32(add_halves(w[0].b, w[1].b), add_halves(w[2].b, w[3].b));
        s[i] = vaddq_f32(a, b);
    }
    return { s[0], s[1] };
}

static inline void transpose4(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d, float32x4_t * t) {
    const float32x4_t ac0 = vzip1q_f32(a, c), ac1 = vzip2q_f32(a, c), bd0 = vzip1q_f32(b, d), bd1 = vzip2q_f32(b, d);
    t[0] = vzip1q_f32(ac0, bd0);
    t[1] = vzip2q_f32(ac0, bd0);
    t[2] = vzip1q_f32(ac1, bd1);
    t[3] = vzip2q_f32(ac1, bd1);
}

static inline void transpose(f32v * v) {
    float32x4_t t[4][4]; // quarters: upper left, lower left, upper right, lower right
    transpose4(v[0].a, v[1].a, v[2].a, v[3].a, t[0]);
    transpose4(v[4].a, v[5].a, v[6].a, v[7].a, t[1]);
    transpose4(v[0].b, v[1].b, v[2].b, v[3].b, t[2]);
    transpose4(v[4].b, v[5].b, v[6].b, v[7].b, t[3]);
    for (int i = 0; i < 4; i++) {
        v[i]     = { t[0][i], t[1][i] };
        v[i + 4] = { t[2][i], t[3][i] };
    }
}

static inline float quantize32(const float * x, int8_t * q, int32_t * sum) {
    float32x4_t v[8], m = vdupq_n_f32(0);
    for (int i = 0; i < 8; i++) {
        v[i] = vld1q_f32(x + 4*i);
        m    = vmaxq_f32(m, vabsq_f32(v[i]));
    }
    const float amax = vmaxvq_f32(m);
    const float id   = amax > 0.0f ? 127.0f/amax : 0.0f;
    for (int h = 0; h < 2; h++) {
        int32x4_t n[4];
        for (int i = 0; i < 4; i++) {
            n[i] = vcvtnq_s32_f32(vmulq_n_f32(v[4*h + i], id));
        }
        const int16x8_t lo = vcombine_s16(vqmovn_s32(n[0]), vqmovn_s32(n[1]));
        const int16x8_t hi = vcombine_s16(vqmovn_s32(n[2]), vqmovn_s32(n[3]));
        vst1q_s8(q + 16*h, vcombine_s8(vqmovn_s16(lo), vqmovn_s16(hi)));
        sum[h] = vaddvq_s32(vaddq_s32(vaddq_s32(n[0], n[1]), vaddq_s32(n[2], n[3])));
    }
    return amax/127.0f;
}

static inline int32x4_t dot1(int32x4_t sum, int32x4_t w, int32x4_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, s8(w), s8(x));
#else
    const int16x8_t lo = vmull_s8(vget_low_s8(s8(w)), vget_low_s8(s8(x)));
    const int16x8_t hi = vmull_high_s8(s8(w), s8(x));
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
#endif
}

template <int MAXW> static inline i32v dot4(i32v sum, const u8v * w, const int8_t * x) {
    for (int g = 0; g < 4; g++) {
        const int32x4_t xv = vdupq_n_s32(load_i32(x + 4*g));
        sum.a = dot1(sum.a, w[g].a, xv);
        sum.b = dot1(sum.b, w[g].b, xv);
    }
    return sum;
}

#endif

#ifdef GGML_INVARIANT
#ifndef GGML_INVARIANT_QUANTIZE4
static inline void quantize4x32(const float * const * x, int8_t * const * q, float * d, int32_t (* sum)[2]) {
    for (int i = 0; i < 4; i++) {
        d[i] = quantize32(x[i], q[i], sum[i]);
    }
}
#endif

#ifndef GGML_INVARIANT_DOT8
// the sum over 32 weights; OFFSET: whether it starts at init
template <int MAXW, bool OFFSET> static inline i32v dot8(const int32_t * init, const u8v * w, const int8_t * x) {
    return dot4<MAXW>(dot4<MAXW>(OFFSET ? set1(init[0]) : set1((int32_t) 0), w, x), w + 4, x + 16);
}
#endif

// keeps in its register what is used several times: GCC would rather read it from memory with each use
static inline f32v held(f32v v) {
#if defined(__GNUC__) && defined(GGML_INVARIANT_NEON)
    asm("" : "+w"(v.a), "+w"(v.b));
#elif defined(__GNUC__) && defined(GGML_INVARIANT_AVX512)
    asm("" : "+v"(v));
#elif defined(__GNUC__)
    asm("" : "+x"(v));
#endif
    return v;
}

// the sum of a lane's LANES phases, where phase p is what sum_lanes() finds in lane p: phases in fours, then the fours
static inline f32v sum_four(f32v p0, f32v p1, f32v p2, f32v p3) { return add(add(p0, p2), add(p1, p3)); }
static inline f32v sum_fours(const f32v * s) {
    return LANES == 16 ? add(add(s[0], s[2 % (LANES/4)]), add(s[1], s[3 % (LANES/4)])) : add(s[0], s[1]);
}
#endif

} // namespace ggml::cpu::invariant
