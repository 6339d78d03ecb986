/** The members of a JSON object by name, each as the JSON that it is: numbers keep their digits, strings their escapes. */
export type Members = Map<string, string>

/**
 * Splits the text of a JSON object into its members. Of members with the same name the last one counts, as everywhere.
 * What is inside of them is not looked at, but for its end.
 *
 * @throws {SyntaxError} where the text is not one object
 */
export function membersOf(text: string): Members {
  const members: Members = new Map()
  let at = skipSpace(text, expect(OPEN_OBJECT, text, skipSpace(text, 0)))
  while (text.charCodeAt(at) !== CLOSE_OBJECT) {
    if (members.size > 0) at = skipSpace(text, expect(COMMA, text, at))
    expect(QUOTE, text, at)
    const nameEnd = endOfString(text, at)
    const start = skipSpace(text, expect(COLON, text, skipSpace(text, nameEnd)))
    const end = endOfValue(text, start)
    members.set(nameIn(text, at, nameEnd), text.slice(start, end))
    at = skipSpace(text, end)
  }
  if (skipSpace(text, at + 1) < text.length) throw unexpected(text, skipSpace(text, at + 1))
  return members
}

const nameIn = (text: string, start: number, end: number): string => {
  const name = text.slice(start + 1, end - 1)
  return name.includes('\\') ? JSON.parse(text.slice(start, end)) : name
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

/**
 * Splits the text of a JSON array into the texts of its elements, each as it was written.
 *
 * @param text valid JSON
 */
export function elementsOf(text: string): string[] {
  const elements: string[] = []
  let at = skipSpace(text, text.indexOf('[') + 1)
  while (text[at] !== ']') {
    const end = endOfValue(text, at)
    elements.push(text.slice(at, end))
    at = skipSpace(text, end)
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1)
  }
  return elements
}

const QUOTE = 34, BACKSLASH = 92, COMMA = 44, COLON = 58
const OPEN_LIST = 91, CLOSE_LIST = 93, OPEN_OBJECT = 123, CLOSE_OBJECT = 125

/** The place after a character that must be there. */
function expect(code: number, text: string, at: number): number {
  if (text.charCodeAt(at) !== code) throw unexpected(text, at)
  return at + 1
}

function unexpected(text: string, at: number): SyntaxError {
  return new SyntaxError(at < text.length ? `${JSON.stringify(text[at])} at character ${at + 1}` : 'it breaks off')
}

// No recursion: a body may be nested more deeply than the stack is.
function endOfValue(text: string, start: number): number {
  let depth = 0
  let at = start
  do {
    const code = text.charCodeAt(at)
    if (code === QUOTE) at = endOfString(text, at)
    else if (code === OPEN_OBJECT || code === OPEN_LIST) { depth++; at++ }
    else if (depth === 0) at = endOfLiteral(text, at)
    else if (code === CLOSE_OBJECT || code === CLOSE_LIST) { depth--; at++ }
    else if (at < text.length) at++
    else throw unexpected(text, at)
  } while (depth > 0)
  return at
}

function endOfString(text: string, start: number): number {
  let end = start
  do end = text.indexOf('"', end + 1)
  while (end > 0 && isEscaped(text, end))
  if (end < 0) throw unexpected(text, text.length)
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
  if (at === start) throw unexpected(text, at)
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
