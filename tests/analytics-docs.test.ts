import type { Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect } from '../src/database.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { asTable, examples, readBlocks } from './examples.ts'
import { createWorld, type World } from './world.ts'

// Every call of docs/analytics.md answers what the page says, on the log that the page shows.

const blocks = await readBlocks('docs/analytics.md')
let world: World
let sql: Sql

/** What happened: who, for whom, on which channel, what, on which plan. */
const log: [string, keyof typeof people, keyof typeof orgs, string, string, string?][] = [
  ['2026-03-02T09:00Z', 'ada', 'acme', 'usage', 'Dashboard Opened', 'pro'],
  ['2026-03-02T09:05Z', 'ada', 'acme', 'cli-usage', 'CLI Command Invoked'],
  ['2026-03-02T09:12Z', 'ada', 'acme', 'build-lifecycle', 'Build Requested'],
  ['2026-03-02T09:20Z', 'ada', 'acme', 'build-lifecycle', 'Build Succeeded'],
  ['2026-03-03T10:00Z', 'bob', 'acme', 'usage', 'Dashboard Opened', 'pro'],
  ['2026-03-03T10:10Z', 'bob', 'acme', 'build-lifecycle', 'Build Requested'],
  ['2026-03-03T10:18Z', 'bob', 'acme', 'build-lifecycle', 'Build Failed'],
  ['2026-03-04T08:00Z', 'eve', 'evil', 'usage', 'Dashboard Opened', 'free'],
  ['2026-03-09T09:00Z', 'ada', 'demo', 'usage', 'Dashboard Opened', 'free'],
  ['2026-03-09T09:30Z', 'ada', 'demo', 'cli-usage', 'CLI Command Invoked'],
  ['2026-03-10T11:00Z', 'bob', 'acme', 'build-lifecycle', 'Build Requested'],
  ['2026-03-10T11:09Z', 'bob', 'acme', 'build-lifecycle', 'Build Succeeded'],
  ['2026-03-17T10:00Z', 'bob', 'acme', 'usage', 'Dashboard Opened', 'pro'],
]

/** Builds: when each was requested, started and ended, who asked, and how it ended. */
const builds: [string, string, string, keyof typeof people, string, string?][] = [
  ['2026-03-02T09:12Z', '2026-03-02T09:13Z', '2026-03-02T09:20Z', 'ada', 'succeeded'],
  ['2026-03-03T10:10Z', '2026-03-03T10:12Z', '2026-03-03T10:18Z', 'bob', 'failed', 'validation failed'],
  ['2026-03-10T11:00Z', '2026-03-10T11:01Z', '2026-03-10T11:09Z', 'bob', 'succeeded'],
]

beforeAll(async () => {
  world = await createWorld()
  // Times, JSON and arrays as psql shows them.
  sql = connect(world.databaseUrl, { fetch_types: false, max: 1, types: { asText: { to: 25, from: [1082, 1114, 1184, 3802], serialize: String, parse: String } } } as never)
  for (const [at, who, org, channel, event, plan] of log) {
    await world.sql`
      insert into public.events (scope_id, occurred_at, event_id, org_id, actor_id, event, channel, tags, source)
      values (${orgs[org]}, ${at}, ${uuidV7(new Date(at))}, ${orgs[org]}, ${people[who]}, ${event}, ${channel}, ${world.sql.json(plan ? { plan } : {})}, 'service')`
  }
  await world.sql.begin(async (tx) => {
    await tx`set local session_replication_role = replica` // the triggers would write times and events of their own
    for (const [requested, started, ended, who, status, error = null] of builds) {
      await tx`
        insert into public.build_requests (owner_org, app_id, requested_by, platform, status, last_error, created_at, started_at, completed_at)
        values (${orgs.acme}, 'com.acme.app', ${people[who]}, 'ios', ${status}, ${error}, ${requested}, ${started}, ${ended})`
    }
  })
  await world.sql`select tracking.roll_up(6)`
})
afterAll(async () => {
  await sql.end()
  await world.close()
})

describe('the page\'s queries answer what it says', () => {
  for (const { line, call, answer } of examples(blocks, 'sql', 'text')) {
    test(`line ${line}: ${call.split('\n')[0]}`, async () => {
      expect(asTable(await sql.unsafe(call))).toBe(answer)
    })
  }
})

test('and what it calls over HTTP', async () => {
  const [{ call, answer } = { call: '', answer: '' }] = examples(blocks, 'js', 'json')
  const { data, error } = await new Function('supabase', `return ${call.replace(/^const .* = await /, '')}`)(await world.signIn('bob@acme.test'))
  expect({ data, error }).toEqual({ data: JSON.parse(answer), error: null })
})

test('what is wrong with an argument is told over HTTP as well', async () => {
  const bob = await world.signIn('bob@acme.test')
  const { status, error } = await bob.schema('analytics' as 'public').rpc('funnel', { steps: ['Dashboard Opened'] })
  expect({ status, error }).toEqual({ status: 400, error: {
    code: '22023', message: 'invalid_steps', details: 'A funnel has 2 to 20 steps, not 1.',
    hint: 'Name the events in their order, as in array[\'Build Requested\', \'Build Succeeded\'].' } })
})

describe('tools fill in the times, and an analyst may ask', () => {
  test.each(['metabase', 'grafana'])('%s', async (tool) => {
    const { text } = blocks.find(({ language }) => language === tool)!
    const [since, until] = ['\'2026-03-01T00:00:00Z\'', '\'2026-03-16T00:00:00Z\'']
    const query = text.replace(/\{\{since\}\}|\$__timeFrom\(\)/, since).replace(/\{\{until\}\}|\$__timeTo\(\)/, until)
    const rows = await sql.begin(async (tx) => {
      await tx`set local role analyst`
      return tx.unsafe(query)
    })
    expect(rows.length).toBeGreaterThan(2)
  })
})

test('an analyst\'s login is made as the page says, reads everything, and writes nothing', async () => {
  const { text } = blocks.find(({ language }) => language === 'postgres')!
  await world.sql.unsafe(text.replace('metabase', 'docs_metabase').replace('…', 'secret'))
  const metabase = world.connectAs('docs_metabase', 'secret')
  try {
    expect(await metabase`select events from analytics.activity('month')`).toEqual([{ events: String(log.length) }])
    await expect(metabase`insert into public.events (event) values ('Forged')`).rejects.toMatchObject({ code: '42501' })
  } finally {
    await metabase.end()
    await world.sql`drop role docs_metabase`
  }
})
