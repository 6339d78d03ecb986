/**
 * Splits the text of a JSON object into the texts of its members, each as it was written: numbers keep their digits
 * and strings their escapes. Of members with the same name the last one counts, as everywhere.
 *
 * @param text valid JSON
 */
export function membersOf(text: string): Map<string, string> {
  const members = new Map<string, string>()
  let at = skipSpace(text, text.indexOf('{') + 1)
  while (text[at] !== '}') {
    const nameEnd = endOfValue(text, at)
    const start = skipSpace(text, text.indexOf(':', nameEnd) + 1)
    const end = endOfValue(text, start)
    members.set(JSON.parse(text.slice(at, nameEnd)), text.slice(start, end))
    at = skipSeparator(text, end)
  }
  return members
}

/** Splits the text of a JSON array into the texts of its elements, each as it was written. */
export function elementsOf(text: string): string[] {
  const elements: string[] = []
  let at = skipSpace(text, text.indexOf('[') + 1)
  while (text[at] !== ']') {
    const end = endOfValue(text, at)
    elements.push(text.slice(at, end))
    at = skipSeparator(text, end)
  }
  return elements
}

const QUOTE = 34, BACKSLASH = 92, OPEN = [91, 123], CLOSE = [93, 125]

// No recursion: a body may be nested more deeply than the stack is.
function endOfValue(text: string, start: number): number {
  let depth = 0
  let at = start
  do {
    const code = text.charCodeAt(at)
    if (code === QUOTE) at = endOfString(text, at)
    else if (OPEN.includes(code)) { depth++; at++ }
    else if (CLOSE.includes(code)) { depth--; at++ }
    else if (depth > 0) at++
    else at = endOfLiteral(text, at)
  } while (depth > 0)
  return at
}

function endOfString(text: string, start: number): number {
  let at = start + 1
  while (text.charCodeAt(at) !== QUOTE) at += text.charCodeAt(at) === BACKSLASH ? 2 : 1
  return at + 1
}

function endOfLiteral(text: string, start: number): number {
  let at = start
  while (at < text.length && !/[\s,\]}]/.test(text.charAt(at))) at++
  return at
}

function skipSpace(text: string, start: number): number {
  let at = start
  while (/\s/.test(text.charAt(at))) at++
  return at
}

function skipSeparator(text: string, start: number): number {
  const at = skipSpace(text, start)
  return text[at] === ',' ? skipSpace(text, at + 1) : at
}
