/** What `aded bench ab` measures when no file is named: a few prompts of the kinds that people send. */
import type { BenchPrompt } from "./prompts.ts";

const REPORT =
  "The north pump failed at 06:10 on Monday. The crew replaced the seal, tested the pump at half load, and put it back " +
  "into service at 09:40. The south pump carried the load meanwhile; its bearing temperature rose to 71 degrees and fell " +
  "back to 58 degrees once the north pump was running again. A new seal and a spare bearing were ordered on Tuesday.";

const CODE = `def average(values):
    total = 0
    for value in values:
        total = total + value
    return total / len(values)

def largest(values):
    best = values[0]
    for value in values:
        if value > best:
            best = value
    return best`;

export const DEFAULT_PROMPTS: readonly BenchPrompt[] = [
  { id: "chat/moon", category: "chat", text: "Why do we always see the same side of the moon?" },
  { id: "chat/bread", category: "chat", text: "Explain step by step how to bake a simple white bread." },
  { id: "chat/habits", category: "chat", text: "Give me ten tips for sleeping better, one sentence each." },
  {
    id: "writing/letter",
    category: "writing",
    text: "Write a short letter that asks a landlord to repair the heating.",
  },
  {
    id: "writing/story",
    category: "writing",
    text: "Write a short story about a lighthouse keeper and a fox.",
  },
  {
    id: "code/primes",
    category: "code",
    text: "Write a Python function that lists all primes below n, and explain it.",
  },
  {
    id: "code/types",
    category: "code",
    text: `Add type hints and docstrings to this Python code, changing nothing else:\n\n${CODE}`,
  },
  {
    id: "code/rename",
    category: "code",
    text: `Rewrite this code with "values" renamed to "numbers", and print all of it:\n\n${CODE}`,
  },
  {
    id: "summary/report",
    category: "summary",
    text: `Summarise this report in three bullet points:\n\n${REPORT}`,
  },
  {
    id: "extraction/report",
    category: "extraction",
    text: `List every time, day and temperature in this report as JSON:\n\n${REPORT}`,
  },
  {
    id: "math/train",
    category: "math",
    text: "A train leaves at 9:15 and travels 140 km at 80 km/h. When does it arrive? Show each step.",
  },
  {
    id: "math/table",
    category: "math",
    text: "Print the multiplication table from 1 to 9 as a Markdown table.",
  },
];
