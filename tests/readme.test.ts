import { execFile } from 'node:child_process'
import { rm, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { asTable, examples, readBlocks, withEllipses } from './examples.ts'
import { createWorld, type World } from './world.ts'

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
  for (const [index, { line, call, answer }] of examples(blocks, 'js', 'json').entries()) {
    test(`line ${line}: ${call.split('\n')[0]}`, () => {
      expect(withEllipses(answers[index], JSON.parse(answer))).toEqual(JSON.parse(answer))
    })
  }
})

describe('the README\'s queries answer what it says', () => {
  for (const { line, call, answer } of examples(blocks, 'sql', 'text')) {
    test(`line ${line}: ${call.split('\n')[0]}`, async () => {
      expect(asTable(await world.sql.unsafe(call))).toBe(answer)
    })
  }
})

/** Runs all of the README's JavaScript from the first import on, as one module, and gives the answers it printed. */
async function runScript(): Promise<unknown[]> {
  const javascript = blocks.filter(({ language }) => language === 'js')
  const start = javascript.findIndex(({ text }) => text.startsWith('import'))
  const shown = new Set(examples(blocks, 'js', 'json').map(({ line }) => line))
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
