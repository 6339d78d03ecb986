import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { connect } from '../src/database.ts'
import { runPgTap, type TapResult } from './pgtap.ts'
import { cloneDatabase, templates } from './world.ts'

const folder = join(import.meta.dirname, 'database')
const files = readdirSync(folder).filter((name) => name.endsWith('.test.sql')).sort()

describe('tests/database', () => {
  test.each(files)('%s', async (file) => {
    const { failures } = await run(readFileSync(join(folder, file), 'utf8'))
    expect(failures.join('\n\n')).toBe('')
  })
})

describe('the runner of pgTAP files', () => {
  const wrap = (plan: number, body: string) => `begin; select plan(${plan}); ${body} select * from finish(); rollback;`

  test('passes what passes', async () => {
    expect(await run(wrap(1, `select ok(true, 'fine');`))).toEqual({ passed: 1, failures: [] })
  })

  test('reports a failed assertion with its diagnostics', async () => {
    const { failures } = await run(wrap(2, `select ok(true); select is(1, 2, 'one is two');`))
    expect(failures).toEqual([expect.stringMatching(/^not ok 2 - one is two[^]*have: 1[^]*want: 2/)])
  })

  test('reports an assertion too few', async () => {
    expect((await run(wrap(2, 'select ok(true);'))).failures).toEqual(['2 assertions were planned, and 1 ran.'])
  })

  test('reports an SQL error, and how far the file came', async () => {
    const { failures } = await run(wrap(2, 'select ok(true); select 1 / 0;'))
    expect(failures).toEqual(['After 1 assertions: division by zero'])
  })

  test('reports a file without a plan', async () => {
    expect((await run('select 1')).failures).toEqual(['The file has no plan.'])
  })
})

async function run(text: string): Promise<TapResult> {
  const clone = await cloneDatabase(templates.pgTap)
  const sql = connect(clone.databaseUrl, { max: 1, connection: { search_path: 'public, extensions' } } as never)
  try {
    return await runPgTap(sql, text)
  } finally {
    await sql.end()
    await clone.drop()
  }
}
