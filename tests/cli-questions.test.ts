import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { run as runCli, type RunOptions } from './cli.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { asLogin, createWorld, type World } from './world.ts'

let world: World
const analyst = { login: `cli_analyst_${uuidV7().slice(-12)}`, password: 'reads_all' }

beforeAll(async () => {
  world = await createWorld()
  await writeLog()
  await world.sql.unsafe(`create role ${analyst.login} login password '${analyst.password}' in role analyst`)
})
afterAll(async () => {
  await world.sql.unsafe(`drop role if exists ${analyst.login}`)
  await world.close()
})

const asPerson = (email: string): NodeJS.ProcessEnv => ({ ACTORSCOPE_EMAIL: email, ACTORSCOPE_PASSWORD: 'password' })
const asAnalyst = (): NodeJS.ProcessEnv => ({ DATABASE_URL: asLogin(world.databaseUrl, analyst.login, analyst.password) })
const run = (args: string[], env: NodeJS.ProcessEnv = asPerson('ada@acme.test'), options: RunOptions = {}) =>
  runCli(args, { env: { ACTORSCOPE_URL: world.api.url, ...env }, ...options })

const cases = [
  ['funnel', 'CLI Command Invoked', 'Build Requested', 'Build Succeeded', '--within', '2h'],
  ['funnel', 'Build Requested', 'Build Succeeded', '--breakdown', 'platform', '--by', 'org'],
  ['retention', 'CLI Command Invoked', '--until', '2026-03-23'],
  ['active', '--since', '2026-03-02', '--until', '2026-03-12'],
  ['builds'], ['builds', '--by', 'platform'],
  ['surfaces'], ['paths', 'CLI Command Invoked'], ['sessions'], ['activity']]

test('x', async () => {
  let out = ''
  for (const c of cases) for (const [who, env] of [['ada', asPerson('ada@acme.test')], ['analyst', asAnalyst()]] as const)
    for (const f of [[], ['--json'], ['--sql']]) {
      const r = await run([...c, ...f], env)
      out += `${who}: ${c.join(' ')} ${f} -> ${r.code}\n${r.stdout}${r.stderr}\n`
    }
  writeFileSync('/tmp/clitest/out.txt', out)
  expect(1).toBe(1)
}, 300_000)

type Logged = [at: string, event: string, actor: string, where?: 'acme' | 'demo' | 'evil', channel?: string, tags?: Record<string, string>]

/** A log of two weeks of March: what ada, bob and cyd do for Acme, ada for Demo, and eve for Evil. */
async function writeLog(): Promise<void> {
  const { ada, bob, cyd, eve } = people
  const build = (at: string, event: string, actor: string, platform: string): Logged => [at, event, actor, 'acme', 'build-lifecycle', { platform }]
  const log: Logged[] = [
    ['2026-03-02T09:00Z', 'CLI Command Invoked', ada, 'acme', 'cli-usage'],
    build('2026-03-02T09:10Z', 'Build Requested', ada, 'ios'),
    build('2026-03-02T09:40Z', 'Build Succeeded', ada, 'ios'),
    ['2026-03-02T10:00Z', 'CLI Command Invoked', bob, 'acme', 'cli-usage'],
    build('2026-03-02T10:05Z', 'Build Requested', bob, 'android'),
    ['2026-03-03T10:00Z', 'CLI Command Invoked', bob, 'acme', 'cli-usage'],
    ['2026-03-04T08:00Z', 'CLI Command Invoked', ada, 'demo', 'cli-usage'],
    ['2026-03-09T09:00Z', 'CLI Command Invoked', ada, 'acme', 'cli-usage'],
    ['2026-03-09T09:01Z', '📊 Dashboard\u001b[2J Opened', ada, 'acme', 'usage'],
    ['2026-03-11T12:00Z', 'CLI Command Invoked', cyd, 'acme', 'cli-usage'],
    ['2026-03-02T11:00Z', 'CLI Command Invoked', eve, 'evil', 'cli-usage'],
  ]
  for (const [at, event, actor, where = 'acme', channel = 'default', tags = {}] of log) {
    const occurred = new Date(at)
    await world.sql`
      insert into events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, tags, source)
      values (${orgs[where]}, ${occurred}, ${uuidV7(occurred)}, ${orgs[where]}, ${actor}, ${`com.${where}.app`}, ${event}, ${channel}, ${world.sql.json(tags)}, 'client')`
  }
  await world.sql.begin(async (tx) => {
    await tx`set local session_replication_role = replica` // no trigger: these builds' events are in the log
    await tx`
      insert into build_requests (owner_org, app_id, requested_by, platform, status, last_error, created_at, queued_at, started_at, completed_at, lifecycle)
      select ${orgs.acme}, 'com.acme.app', ${ada}, b.platform, b.status, b.error, b.at, b.at, b.at + b.queue, b.at + b.queue + b.run, 'finished'
      from (values
        ('ios', 'succeeded', null, timestamptz '2026-03-02T09:10Z', interval '30 s', interval '12 min'),
        ('ios', 'failed', 'exit code 65', '2026-03-02T10:00Z', '10 s', '2 min'),
        ('ios', 'succeeded', null, '2026-03-02T10:30Z', '10 s', '10 min'),
        ('android', 'timed_out', null, '2026-03-10T10:00Z', '5 s', '15 min'),
        ('android', 'cancelled', null, '2026-03-10T11:00Z', '5 s', '1 min')
      ) as b (platform, status, error, at, queue, run)`
  })
}
