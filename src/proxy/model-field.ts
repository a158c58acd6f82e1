/**
 * Reads one top-level string field of a JSON object without parsing the rest. Requests carry images as base64 strings of
 * many megabytes; skipping those with a byte search is far cheaper than building them.
 */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COLON = 0x3a;

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function skipSpace(json: Buffer, at: number): number {
  let i = at;
  while (i < json.length && isSpace(json[i])) i++;
  return i;
}

/** Index after the closing quote of the string that opens at `at`; -1 when it never closes. */
function stringEnd(json: Buffer, at: number): number {
  let quote = json.indexOf(QUOTE, at + 1);
  while (quote >= 0) {
    let slashes = 0;
    for (let i = quote - 1; i > at && json[i] === BACKSLASH; i--) slashes++;
    if (slashes % 2 === 0) return quote + 1;
    quote = json.indexOf(QUOTE, quote + 1);
  }
  return -1;
}

function parseString(json: Buffer, from: number, to: number): string | undefined {
  try {
    const value: unknown = JSON.parse(json.toString("utf8", from, to));
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The string value of the top-level field `name`; undefined when the text is no object, the field is missing or is no
 * string. Where the field occurs twice the last one counts, as in JSON.parse and in the engine. Text after a syntax error is
 * not judged: the engine answers for that.
 */
export function topLevelString(json: Buffer, name: string): string | undefined {
  let i = skipSpace(json, json[0] === 0xef && json[1] === 0xbb && json[2] === 0xbf ? 3 : 0);
  if (json[i] !== OPEN_BRACE) return undefined;
  i++;
  let found: string | undefined;
  let depth = 1;
  while (i < json.length && depth > 0) {
    const byte = json[i];
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth++;
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) depth--;
    if (byte !== QUOTE) {
      i++;
      continue;
    }
    const end = stringEnd(json, i);
    if (end < 0) return found;
    const colon = depth === 1 ? skipSpace(json, end) : -1;
    // At depth 1 a string before a colon is a key; every other string is a value of no concern.
    if (colon >= 0 && json[colon] === COLON && parseString(json, i, end) === name) {
      const value = skipSpace(json, colon + 1);
      found = undefined;
      i = value;
      if (json[value] === QUOTE) {
        const valueEnd = stringEnd(json, value);
        if (valueEnd < 0) return undefined;
        found = parseString(json, value, valueEnd);
        i = valueEnd;
      }
      continue;
    }
    i = end;
  }
  return found;
}
