#pragma once

// requests whose sampler can only choose the token with the largest logit [aded]

struct common_params_sampling;
struct llama_vocab;

// True if common_sampler_sample() returns the token with the largest logit, whichever the logits are, as long as no other one is as large,
// and if nothing else that it computes is asked for. Then finding that token is enough: the samplers copy and sort the vocabulary.
bool server_draft_is_greedy(const common_params_sampling & params, const llama_vocab * vocab);
