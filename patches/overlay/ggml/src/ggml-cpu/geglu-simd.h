#pragma once

// ggml_vec_geglu_f32() for whole vectors: the same values from the same table, looked up by gathers

#include "ggml-cpu-impl.h"
#include "simd-mappings.h"

#if defined(__AVX512F__) && defined(__F16C__)
#    define GGML_GEGLU_SIMD

// y = gelu(x)*g for the first values of n; returns how many
static inline int ggml_geglu_f32_simd(int n, float * y, const float * x, const float * g) {
    const __m512 top = _mm512_set1_ps(10.0f), bottom = _mm512_set1_ps(-10.0f);

    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m512    v     = _mm512_loadu_ps(x + i);
        const __mmask16 above = _mm512_cmp_ps_mask(v, bottom, _CMP_NLE_UQ); // not a number: as it is
        const __mmask16 table = _mm512_mask_cmp_ps_mask(above, v, top, _CMP_LT_OQ);

        // note: four bytes are read for each two, but never at the end of the table
        const __m512i at    = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        const __m512i found = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), table, at, ggml_table_gelu_f16, 2);
        const __m512  gelu  = _mm512_mask_cvtph_ps(v, table, _mm512_cvtepi32_epi16(found));

        _mm512_storeu_ps(y + i, _mm512_maskz_mul_ps(above, gelu, _mm512_loadu_ps(g + i)));
    }
    return i;
}

#elif defined(__AVX2__) && defined(__F16C__)
#    define GGML_GEGLU_SIMD

static inline int ggml_geglu_f32_simd(int n, float * y, const float * x, const float * g) {
    const __m256 top = _mm256_set1_ps(10.0f), bottom = _mm256_set1_ps(-10.0f);

    int i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v     = _mm256_loadu_ps(x + i);
        const __m256 above = _mm256_cmp_ps(v, bottom, _CMP_NLE_UQ);
        const __m256 table = _mm256_and_ps(above, _mm256_cmp_ps(v, top, _CMP_LT_OQ));

        const __m256i at    = _mm256_cvtepu16_epi32(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        const __m256i found = _mm256_and_si256(_mm256_set1_epi32(0xffff), _mm256_mask_i32gather_epi32(_mm256_setzero_si256(),
                (const int *) ggml_table_gelu_f16, at, _mm256_castps_si256(table), 2));
        const __m256  gelu  = _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(found), _mm256_extracti128_si256(found, 1)));

        _mm256_storeu_ps(y + i, _mm256_and_ps(above, _mm256_mul_ps(_mm256_blendv_ps(v, gelu, table), _mm256_loadu_ps(g + i))));
    }
    return i;
}

#endif
