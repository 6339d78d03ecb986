import { readdir } from 'node:fs/promises'
import type { Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { tellOfErasure } from '../src/sinks.ts'
import { published, run } from './cli.ts'
import { orgs, people } from './demo.ts'
import { asTable, examples, readBlocks } from './examples.ts'
import { logOf } from './log.ts'
import { startPostHog, startWebhook } from './receivers.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

// docs/keeping.md: its calls are made, one after another, and answer what it says.

const blocks = await readBlocks('docs/keeping.md')
let world: World
let sql: Sql
let folder: Awaited<ReturnType<typeof temporaryFolder>>

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  folder = await temporaryFolder()
  const log = logOf(sql)
  await sql`delete from tracking.sinks`
  await sql`delete from public.events`
  for (const month of ['2025-08', '2025-09', '2025-10']) await sql`select tracking.make_partition(${`${month}-01`}::timestamp)`
  await log.write('2025-09', { channel: 'app' }, 'One', 'Two')
  await log.write('2025-10', { channel: 'app' }, 'Three', 'Four', 'Five')
  await log.write('2025-10', { actor: people.bob }, 'Kept', 'Kept, too')
  await log.createSink('archive')
  await log.drain('archive')
  await log.write('2025-08', { channel: 'app' }, 'Undelivered')
})
afterAll(async () => {
  await world.close()
  await folder.remove()
})

/** What happens between the calls of the page, by how the next one begins. */
const meanwhile: Record<string, () => Promise<unknown>> = {
  'select * from tracking.drop_partitions': async () => {
    await sql`select tracking.make_partition('2001-09-01')`
    await logOf(sql).write('2001-09', 'Very old')
    await logOf(sql).drain('archive')
  },
  'npx actorscope export actor': async () => {
    await logOf(sql).write('2025-10', { actor: people.bob, org: orgs.acme }, 'For Acme')
    await sql`insert into build_requests (app_id, platform, requested_by) values ('com.acme.app', 'ios', ${people.bob})`
    await logOf(sql).drain('archive')
  },
  'npx actorscope erase org': () => logOf(sql).write('2025-10', { actor: people.eve, org: orgs.evil }, 'For Evil'),
}

describe('the page\'s calls answer what it says', () => {
  for (const { line, call, answer } of [...examples(blocks, 'sql', 'text'), ...examples(blocks, 'sh', 'text')].toSorted((a, b) => a.line - b.line)) {
    test(`line ${line}: ${call.split('\n')[0]}`, async () => {
      for (const [beginning, happens] of Object.entries(meanwhile)) if (call.startsWith(beginning)) await happens()
      if (!call.startsWith('npx ')) return expect(asTable(await sql.unsafe(call))).toBe(answer)
      const [, , ...args] = call.split(' ')
      const { code, stdout, stderr } = await run(args, { cwd: folder.path, program: published, env: { DATABASE_URL: world.databaseUrl } })
      expect([code, (stdout + stderr).trimEnd()]).toEqual([0, answer])
      expect((await readdir(folder.path)).filter((name) => name.endsWith('.part'))).toEqual([])
    })
  }
})

test('the page shows what PostHog and a webhook are told', async () => {
  const [posthog, hook] = [await startPostHog('phc'), await startWebhook(`whsec_${btoa('a secret of twenty-four!')}`)]
  const secrets: Record<string, string> = { api_key: 'phc', personal_api_key: 'phx_personal', secret: `whsec_${btoa('a secret of twenty-four!')}` }
  const context = { secret: (name: string) => secrets[name], fetch, sql, log() {} }
  const whom = { erasure: 'e', subject: 'actor' as const, id: people.bob, email: null, erased_at: '2026-11-05T09:30:00.123456+00:00' }
  await tellOfErasure({ sink: 'p', kind: 'posthog', settings: { host: posthog.url, project_id: '12345' } }, context, whom, AbortSignal.timeout(5000))
  await tellOfErasure({ sink: 'h', kind: 'webhook', settings: { url: `${hook.url}/hooks` } }, context, whom, AbortSignal.timeout(5000))
  const shown = blocks.filter(({ language }) => language === 'json').map(({ text }) => JSON.parse(text))
  expect([posthog.requests[0]?.body, hook.requests[0]?.body]).toEqual(shown)
  await Promise.all([posthog.close(), hook.close()])
})
