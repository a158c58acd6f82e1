#pragma once

// Batch-invariant CPU kernels: a token's result is the same to the last bit, however many other tokens share its batch.
// Switched on before a model is loaded; weights loaded while it is on lie in panels (panel.h).

#include "ggml-backend.h"

#ifdef __cplusplus
#    include "traits.h"
extern "C" {
#endif

// also by the environment: GGML_CPU_BATCH_INVARIANT=1
void ggml_cpu_set_batch_invariant(bool on);
bool ggml_cpu_batch_invariant(void);

// NULL where this build has no such kernels
ggml_backend_buffer_type_t ggml_backend_cpu_panel_buffer_type(void);

struct ggml_cgraph;
struct ggml_compute_params;

// Consecutive products of the same activations, such as those for Q, K and V: the activations are converted once, and no thread waits
// for the others in between. Returns how many nodes behind node_n are done with it; 0: nothing was done
int ggml_cpu_invariant_mul_mats(const struct ggml_compute_params * params, const struct ggml_cgraph * cgraph, int node_n);

#ifdef __cplusplus
}

namespace ggml::cpu::invariant {

// GGML_OP_FLASH_ATTN_EXT; NULL if not for these kernels
tensor_traits * flash_attn_traits(const ggml_tensor * op);

// GGML_OP_MUL_MAT with weights as they are: every column by itself, as the stock path does for a single one
tensor_traits * column_traits(const ggml_tensor * op);

} // namespace ggml::cpu::invariant
#endif
