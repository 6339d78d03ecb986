import { execFile } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, type World } from './world.ts'

type Block = { readonly language: string, readonly text: string, readonly line: number }
/** A call as the README shows it, and the answer under it. */
type Example = { readonly line: number, readonly call: string, readonly answer: string }

const blocks = await readBlocks('README.md')
const script = 'readme-examples.mjs'
let world: World
let answers: unknown[]

beforeAll(async () => {
  world = await createWorld()
  answers = await runScript()
}, 60_000)
afterAll(async () => {
  await rm(script, { force: true })
  await world.close()
})

describe('the README\'s calls answer what it says', () => {
  for (const [index, { line, call, answer }] of examples('js', 'json').entries()) {
    test(`line ${line}: ${call.split('\n')[0]}`, () => {
      expect(withEllipses(answers[index], JSON.parse(answer))).toEqual(JSON.parse(answer))
    })
  }
})

describe('the README\'s queries answer what it says', () => {
  for (const { line, call, answer } of examples('sql', 'text')) {
    test(`line ${line}: ${call.split('\n')[0]}`, async () => {
      expect(asTable(await world.sql.unsafe(call))).toBe(answer)
    })
  }
})

async function readBlocks(path: string): Promise<Block[]> {
  const text = await readFile(path, 'utf8')
  return [...text.matchAll(/^```(\w+)\n(.*?)\n```$/gms)].map(({ 1: language = '', 2: body = '', index }) => ({
    language, text: body, line: text.slice(0, index).split('\n').length + 1,
  }))
}

function examples(language: string, answerLanguage: string): Example[] {
  return blocks.flatMap((block, index) => {
    const answer = blocks[index + 1]
    return block.language === language && answer?.language === answerLanguage
      ? [{ line: block.line, call: block.text, answer: answer.text }]
      : []
  })
}

/** Runs all of the README's JavaScript from the first import on, as one module, and gives the answers it printed. */
async function runScript(): Promise<unknown[]> {
  const javascript = blocks.filter(({ language }) => language === 'js')
  const start = javascript.findIndex(({ text }) => text.startsWith('import'))
  const shown = new Set(examples('js', 'json').map(({ line }) => line))
  const module = javascript.slice(start).map(({ text, line }) => shown.has(line) ? answering(text) : text)
  const [imports = '', ...rest] = module
  await writeFile(script, [
    imports.replace('http://127.0.0.1:54321', world.api.url),
    'const answers = []', ...rest,
    'console.log(JSON.stringify(answers.map(({ data, error }) => error ?? data)))',
  ].join('\n'))
  const { stdout } = await promisify(execFile)(process.execPath, [script])
  return JSON.parse(stdout)
}

/** Code that keeps what a call answers: an expression, or a constant that later calls use. */
function answering(call: string): string {
  const constant = /^const (\w+) =/.exec(call)?.[1]
  return constant ? `${call}\nanswers.push(${constant})` : `answers.push(${call})`
}

/** The answer, with the ellipses of the README where it differs from run to run. */
function withEllipses(actual: unknown, shown: unknown): unknown {
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

function asTable(rows: readonly Record<string, unknown>[]): string {
  const columns = Object.keys(rows[0] ?? {})
  const lines = [columns, ...rows.map((row) => columns.map((column) => String(row[column])))]
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => [...line[index]!].length)))
  return lines.map((line) => line.map((cell, index) => cell.padEnd(widths[index]!)).join('  ').trimEnd()).join('\n')
}
