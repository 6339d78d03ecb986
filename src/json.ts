/** The members of a JSON object by name, each as the JSON that it is. */
export type Members = Map<string, string>

/**
 * Splits the text of a JSON object into the texts of its members, each as it was written: numbers keep their digits
 * and strings their escapes. Of members with the same name the last one counts, as everywhere.
 *
 * @param text valid JSON
 */
export function membersOf(text: string): Members {
  const members: Members = new Map()
  let at = skipSpace(text, text.indexOf('{') + 1)
  while (text[at] !== '}') {
    const nameEnd = endOfValue(text, at)
    const start = skipSpace(text, text.indexOf(':', nameEnd) + 1)
    const end = endOfValue(text, start)
    members.set(nameIn(text.slice(at, nameEnd)), text.slice(start, end))
    at = skipSeparator(text, end)
  }
  return members
}

/** The JSON object that has these members. */
export function objectOf(members: Members): string {
  const texts: string[] = []
  for (const [name, value] of members) texts.push(`${JSON.stringify(name)}:${value}`)
  return `{${texts.join(',')}}`
}

/** Sets a member, where there is a value. */
export function setMember(members: Members, name: string, value: string | undefined): void {
  if (value !== undefined) members.set(name, value)
}

/** Says whether a text is a JSON object. */
export function isObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}

const nameIn = (quoted: string): string => (quoted.includes('\\') ? JSON.parse(quoted) : quoted.slice(1, -1))

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

const QUOTE = 34, BACKSLASH = 92, COMMA = 44, OPEN_LIST = 91, CLOSE_LIST = 93, OPEN_OBJECT = 123, CLOSE_OBJECT = 125

// No recursion: a body may be nested more deeply than the stack is.
function endOfValue(text: string, start: number): number {
  let depth = 0
  let at = start
  do {
    const code = text.charCodeAt(at)
    if (code === QUOTE) at = endOfString(text, at)
    else if (code === OPEN_OBJECT || code === OPEN_LIST) { depth++; at++ }
    else if (code === CLOSE_OBJECT || code === CLOSE_LIST) { depth--; at++ }
    else if (depth > 0) at++
    else at = endOfLiteral(text, at)
  } while (depth > 0)
  return at
}

function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1)
  while (isEscaped(text, end)) end = text.indexOf('"', end + 1)
  return end + 1
}

function isEscaped(text: string, at: number): boolean {
  let start = at
  while (text.charCodeAt(start - 1) === BACKSLASH) start--
  return (at - start) % 2 === 1
}

function endOfLiteral(text: string, start: number): number {
  let at = start
  while (at < text.length && !endsLiteral(text.charCodeAt(at))) at++
  return at
}

const endsLiteral = (code: number): boolean =>
  code === COMMA || code === CLOSE_OBJECT || code === CLOSE_LIST || isSpace(code)

function skipSpace(text: string, start: number): number {
  let at = start
  while (isSpace(text.charCodeAt(at))) at++
  return at
}

/** What JSON takes for white space. */
const isSpace = (code: number): boolean => code === 32 || code === 10 || code === 13 || code === 9

function skipSeparator(text: string, start: number): number {
  const at = skipSpace(text, start)
  return text.charCodeAt(at) === COMMA ? skipSpace(text, at + 1) : at
}
