/**
 * Prompts that a drafter knows nothing of: words of chance in nine scripts, and one question in each of 32 languages. For `aded bench ab`:
 *
 *     npx tsx scripts/hard-prompts.ts DIR        writes DIR/soup.jsonl and DIR/languages.jsonl, always the same
 *     npx aded bench ab --prompts DIR/soup.jsonl DIR/languages.jsonl
 */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Random } from "../src/drafter/random.ts";

const SOUPS = 40;
const MARKS = "{}[]();:=<>+-*/%&|^~#@!?";
/** First and last letters of scripts (Unicode blocks). */
const SCRIPTS = [
  ["а", "я"],
  ["α", "ω"],
  ["一", "龥"],
  ["ぁ", "ゖ"],
  ["가", "힣"],
  ["א", "ת"],
  ["ء", "ي"],
  ["अ", "ह"],
].map((ends) => ends.map((letter) => letter.codePointAt(0) ?? 0));
const QUESTIONS = [
  "Erzähle mir etwas über das Meer und seine Bewohner.",
  "Raconte-moi l'histoire d'un petit village.",
  "Cuéntame sobre la vida en la montaña.",
  "Parlami della cucina italiana tradizionale.",
  "Fale sobre a história do Brasil.",
  "Vertel me over de grachten van Amsterdam.",
  "Berätta om vintern i Norrland.",
  "Fortæl om vikingernes rejser.",
  "Kerro minulle Suomen järvistä.",
  "Opowiedz mi o polskich zamkach.",
  "Vyprávěj mi o Praze.",
  "Mesélj nekem a Balatonról.",
  "Povestește-mi despre Carpați.",
  "Расскажи мне о космосе.",
  "Розкажи мені про Карпати.",
  "Πες μου για τα ελληνικά νησιά.",
  "Bana İstanbul'u anlat.",
  "ספר לי על ירושלים.",
  "حدثني عن الصحراء.",
  "मुझे भारत के त्योहारों के बारे में बताओ।",
  "日本の四季について教えてください。",
  "请给我讲讲长城的历史。",
  "한국의 음식에 대해 말해 주세요.",
  "Hãy kể cho tôi về Hà Nội.",
  "เล่าเรื่องประเทศไทยให้ฟังหน่อย",
  "Ceritakan tentang pulau Bali.",
  "Niambie kuhusu wanyama wa Serengeti.",
  "Ngitshele ngezilwane zase-Afrika.",
  "Segðu mér frá eldfjöllum á Íslandi.",
  "Inis dom faoi stair na hÉireann.",
  "Kontaidazu Euskal Herriaz.",
  "Parla'm de Barcelona.",
];

const random = new Random(7);

function letters(count: number, first: number, last: number): string {
  const codes = Array.from({ length: count }, () => first + random.below(last - first + 1));
  return String.fromCodePoint(...codes);
}

function word(): string {
  const kind = random.next();
  if (kind < 0.5) return letters(1 + random.below(9), 0x61, 0x7a);
  if (kind < 0.6) return String(random.below(10 ** (1 + random.below(9))));
  if (kind < 0.7)
    return Array.from({ length: 1 + random.below(5) }, () => MARKS[random.below(MARKS.length)]).join("");
  const [first, last] = SCRIPTS[random.below(SCRIPTS.length)];
  return letters(1 + random.below(6), first, last);
}

const [folder] = process.argv.slice(2);
if (folder === undefined) {
  console.error("usage: npx tsx scripts/hard-prompts.ts DIR");
  process.exit(2);
}
const soups = Array.from({ length: SOUPS }, () =>
  Array.from({ length: 20 + random.below(71) }, word).join(" "),
);
mkdirSync(folder, { recursive: true });
for (const [name, prompts] of Object.entries({ soup: soups, languages: QUESTIONS })) {
  const lines = prompts.map((prompt) => `${JSON.stringify({ prompt })}\n`);
  writeFileSync(path.join(folder, `${name}.jsonl`), lines.join(""));
}
