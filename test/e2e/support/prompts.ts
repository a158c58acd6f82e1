/** Prompts of the kinds that MT-Bench asks: writing, role play, reasoning, coding, knowledge, extraction. */
export const PROMPTS = [
  "Write a short travel blog post about a trip to Hawaii. Mention two dishes and one beach.",
  "You are a hundred years old tree in a rain forest. How do you feel when it rains?",
  "The perimeter of a regular hexagon is 42 inches. How long is each of its sides? Explain each step.",
  "Write a Python function that returns the n-th Fibonacci number, and then the same function with a cache.",
  "What are the main differences between Python and JavaScript? Answer as a list.",
  'Extract the names as a JSON list: "Alice met Bob in Paris, and Carol wrote to Alice from Rome about Bob."',
] as const;

/** The same, as the model's chat template puts them: what /completion and /tree-verify take. */
export const TURNS = PROMPTS.map(
  (content) => `<|im_start|>user\n${content}<|im_end|>\n<|im_start|>assistant\n`,
);
