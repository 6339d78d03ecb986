import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connect } from '../src/database.ts'
import { cloneDatabase, templates, type Clone } from './world.ts'

let clone: Clone

beforeAll(async () => {
  clone = await cloneDatabase(templates.world)
})
afterAll(() => clone.drop())

test('Supabase\'s security and performance advisors report nothing at warning level or above', async () => {
  expect(await advise()).toEqual([])
})

test('the advisors would report a view that reads past row-level security', async () => {
  const sql = connect(clone.databaseUrl, { max: 1 })
  await sql`create view public.everything as select * from public.events`
  expect(await advise()).toEqual([expect.stringContaining('securityDefinerView')])
  await sql`drop view public.everything`
  await sql.end()
})

test('every chapter and the seed pass the linter and the type checker', async () => {
  const files = [...(await readdir('migrations')).map((name) => `migrations/${name}`), 'seed.sql']
  expect(await languageServer('check', ...files)).toMatchObject({ findings: [], output: expect.stringContaining(`Checked ${files.length} files`) })
})

/** The advisors' findings. They look at what the Data API shows, and PostgREST's setting tells them what. */
async function advise(): Promise<string[]> {
  return (await languageServer('dblint')).findings
}

async function languageServer(...args: string[]): Promise<{ findings: string[], output: string }> {
  const databaseUrl = new URL(clone.databaseUrl)
  databaseUrl.searchParams.set('options', '-c pgrst.db_schemas=public,analytics')
  const { stdout, stderr } = await promisify(execFile)(
    'node_modules/.bin/postgres-language-server',
    [args[0]!, '--diagnostic-level=warn', '--max-diagnostics=500', '--colors=off', ...args.slice(1)],
    { env: { ...process.env, DATABASE_URL: databaseUrl.href.replaceAll('+', '%20') } },
  ).catch((failed: { stdout: string, stderr: string }) => failed)
  const output = stdout + stderr
  return { findings: output.match(/^\S+[/:]\S+ .*━{3,}$/gm) ?? [], output }
}
