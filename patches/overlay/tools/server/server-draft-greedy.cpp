#include "server-draft-greedy.h"

#include "common.h"

bool server_draft_is_greedy(const common_params_sampling & params, const llama_vocab * vocab) {
    if (params.temp > 0.0f || params.dynatemp_range > 0.0f || params.mirostat != 0 || params.n_probs > 0 || params.backend_sampling) {
        return false;
    }

    // what may forbid a token or change its logit
    int32_t n_suppress = 0;
    llama_vocab_get_suppress_tokens(vocab, &n_suppress);
    if (!common_grammar_value(params.grammar).empty() || !params.logit_bias.empty() || n_suppress > 0) {
        return false;
    }
    if (!params.reasoning_budget_start.empty() && !params.reasoning_budget_end.empty() &&
            (params.grammar_lazy || params.reasoning_budget_tokens >= 0 || params.reasoning_control)) {
        return false;
    }

    bool has_temp = false;
    for (const auto & type : params.samplers) {
        switch (type) {
            // keep the largest
            case COMMON_SAMPLER_TYPE_TOP_K:
            case COMMON_SAMPLER_TYPE_TOP_P:
            case COMMON_SAMPLER_TYPE_TOP_N_SIGMA:
            case COMMON_SAMPLER_TYPE_MIN_P:
                break;
            // leaves nothing but the largest
            case COMMON_SAMPLER_TYPE_TEMPERATURE:
                has_temp = true;
                break;
            // off
            case COMMON_SAMPLER_TYPE_DRY:
                if (params.dry_multiplier != 0.0f) {
                    return false;
                }
                break;
            case COMMON_SAMPLER_TYPE_PENALTIES:
                if (params.penalty_last_n != 0 && (params.penalty_repeat != 1.0f || params.penalty_freq != 0.0f || params.penalty_present != 0.0f)) {
                    return false;
                }
                break;
            case COMMON_SAMPLER_TYPE_TYPICAL_P:
                if (params.typ_p < 1.0f) {
                    return false;
                }
                break;
            case COMMON_SAMPLER_TYPE_XTC:
                if (params.xtc_probability > 0.0f) {
                    return false;
                }
                break;
            default:
                return false;
        }
    }
    return has_temp;
}
