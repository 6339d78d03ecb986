import { readFile } from 'node:fs/promises'

/** A block of code of a Markdown file. */
export type Block = { readonly language: string, readonly text: string, readonly line: number }
/** A call as a page shows it, and the answer under it. */
export type Example = { readonly line: number, readonly call: string, readonly answer: string }

/** The blocks of code of a Markdown file. */
export async function readBlocks(path: string): Promise<Block[]> {
  const text = await readFile(path, 'utf8')
  return [...text.matchAll(/^```(\w+)\n(.*?)\n```$/gms)].map(({ 1: language = '', 2: body = '', index }) => ({
    language, text: body, line: text.slice(0, index).split('\n').length + 1,
  }))
}

/** The calls of a language that have an answer under them. */
export function examples(blocks: Block[], language: string, answerLanguage: string): Example[] {
  return blocks.flatMap((block, index) => {
    const answer = blocks[index + 1]
    return block.language === language && answer?.language === answerLanguage
      ? [{ line: block.line, call: block.text, answer: answer.text }]
      : []
  })
}

/** The answer, with the ellipses of the README where it differs from run to run. */
export function withEllipses(actual: unknown, shown: unknown): unknown {
  if (shown === '…' && typeof actual === 'number') return shown
  if (typeof shown === 'string' && shown.endsWith('…')) {
    return typeof actual === 'string' && actual.startsWith(shown.slice(0, -1)) ? shown : actual
  }
  if (Array.isArray(actual) && Array.isArray(shown)) return actual.map((item, index) => withEllipses(item, shown[index]))
  if (!isObject(actual) || !isObject(shown)) return actual
  return Object.fromEntries(Object.entries(actual).map(([key, value]) => [key, withEllipses(value, shown[key])]))
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

/** Rows as the pages show them. */
export function asTable(rows: readonly Record<string, unknown>[]): string {
  const columns = Object.keys(rows[0] ?? {})
  const lines = [columns, ...rows.map((row) => columns.map((column) => String(row[column])))]
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => [...line[index]!].length)))
  return lines.map((line) => line.map((cell, index) => cell.padEnd(widths[index]!)).join('  ').trimEnd()).join('\n')
}
