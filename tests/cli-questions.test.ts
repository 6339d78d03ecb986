import { parse } from 'csv-parse/sync'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { secretKey } from '../src/api.ts'
import { questions } from '../src/questions.ts'
import { toStatement } from '../src/statement.ts'
import { inTerminal, run as runCli, startGateway, type Fate, type RunOptions } from './cli.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { asLogin, createWorld, type World } from './world.ts'

let world: World
const unique = uuidV7().slice(-12)
const analyst = `cli_analyst_${unique}`, stranger = `cli_stranger_${unique}`
const cleanups: (() => unknown)[] = []

beforeAll(async () => {
  world = await createWorld()
  await writeLog()
  await world.sql.unsafe(`create role ${analyst} login password 'password' in role analyst; create role ${stranger} login password 'password'`).simple()
})
afterAll(async () => {
  await world.sql.unsafe(`drop role ${analyst}; drop role ${stranger}`).simple()
  await world.close()
})
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})

const asPerson = (email: string): NodeJS.ProcessEnv => ({ ACTORSCOPE_EMAIL: email, ACTORSCOPE_PASSWORD: 'password' })
const ada = asPerson('ada@acme.test')
const inPostgres = (login = analyst): NodeJS.ProcessEnv => ({ DATABASE_URL: asLogin(world.databaseUrl, login, 'password') })
const run = (args: string[], env: NodeJS.ProcessEnv = ada, options: RunOptions = {}) =>
  runCli(args, { env: { ACTORSCOPE_URL: world.api.url, ...env }, ...options })

type Rows = Record<string, unknown>[]
const rowsOf = (stdout: string): Rows => stdout.split('\n').slice(0, -1).map((line) => JSON.parse(line))

/** A question as it is asked on the command line, and as supabase-js asks it; and the answer in 80 columns, for ada. */
const asked: [string[], string, object, string][] = [
  [['funnel', 'CLI Command Invoked', 'Build Requested', 'Build Succeeded', '--within', '2h'],
    'funnel', { steps: ['CLI Command Invoked', 'Build Requested', 'Build Succeeded'], within: '2 hours' }, `
   step                                          actors  of all  of step  median
1  CLI Command Invoked  ███████████████████████       3  100.0%
2  Build Requested      ███████████████▍              2   66.7%    66.7%    7.5m
3  Build Succeeded      ███████▋                      1   33.3%    50.0%     30m
`],
  [['funnel', 'CLI Command Invoked', 'Build Requested', '--by', 'org', '--breakdown', 'os', '--org', orgs.acme, '--until', '2026-03-09'],
    'funnel', { steps: ['CLI Command Invoked', 'Build Requested'], by: 'org', breakdown: 'os', org: orgs.acme, until: '2026-03-09T00:00:00Z' }, `
os        step                                     orgs  of all  of step  median
linux  1  CLI Command Invoked  ██████████████████     1  100.0%
       2  Build Requested      ██████████████████     1  100.0%   100.0%     10m
`],
  [['retention', 'CLI Command Invoked', '--until', '2026-03-23'],
    'retention', { first_event: 'CLI Command Invoked', until: '2026-03-23T00:00:00Z' }, `
week        actors     0    1    2
2026-03-02       2  100%  50%   0%
2026-03-09       1  100%   0%
all              3  100%  33%   0%
`],
  [['retention', 'CLI Command Invoked', '--return', 'Build Requested', '--period', 'day', '--periods', '2', '--by', 'org', '--app', 'com.acme.app', '--until', '2026-03-04'],
    'retention', { first_event: 'CLI Command Invoked', return_event: 'Build Requested', period: 'day', periods: 2, by: 'org', app: 'com.acme.app', until: '2026-03-04T00:00:00Z' }, `
day         orgs     0    1
2026-03-02     1  100%   0%
all            1  100%   0%
`],
  [['active', '--since', '2026-03-02', '--until', '2026-03-06'],
    'active', { since: '2026-03-02T00:00:00Z', until: '2026-03-06T00:00:00Z' }, `
█ returning  ▓ resurrected  ░ new
day                                          actors  returning  resurrected  new
2026-03-02  ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░       2          0            0    2
2026-03-03  ████████████████                      1          1            0    0
2026-03-04  ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓                      1          0            1    0
2026-03-05                                        0          0            0    0
`],
  [['active', '--by', 'org', '--period', 'week', '--event', 'CLI Command Invoked', '--tag', 'os=linux'],
    'active', { by: 'org', period: 'week', event: 'CLI Command Invoked', tags: { os: 'linux' } }, `
█ returning  ▓ resurrected  ░ new
week                                           orgs  returning  resurrected  new
2026-03-02  ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░     1          0            0    1
2026-03-09  █████████████████████████████████     1          1            0    0
`],
  [['builds'], 'build_health', {}, `
█ succeeded  ▓ failed  ░ otherwise
week                        builds  success  run  p95  to fix  flaky  queue  p95
2026-03-02  █████████▓▓▓▓▓       3    66.7%  10m  12m     38m   100%    10s  28s
2026-03-09  ▓▓▓▓▓░░░░            2     0.0%   8m  14m       –     0%     5s   5s

why builds failed                                                         builds
builder_error      █████████████████████████████████████████████████████       1
timeout            █████████████████████████████████████████████████████       1
`],
  [['builds', '--period', 'month', '--by', 'platform', '--app', 'com.acme.app', '--since', '2026-03-03'],
    'build_health', { period: 'month', by: 'platform', app: 'com.acme.app', since: '2026-03-03T00:00:00Z' }, `
█ succeeded  ▓ failed  ░ otherwise
month    platform                builds  success  run  p95  to fix  flaky  queue
2026-03  android   ▓▓▓▓▓▓░░░░░░       2     0.0%   8m  14m       –     0%     5s
No room for p95: a wider terminal shows all, and so does --csv.

why builds failed                                                         builds
timeout            █████████████████████████████████████████████████████       1
`],
  [['surfaces'], 'surfaces', {}, `
builder  cli  dashboard                           actors  or more  orgs  or more
   ●      ·       ·                                    0        2     0        1
   ·      ●       ·      ███████████████████████       1        3     1        2
   ·      ·       ●                                    0        1     0        1
   ●      ●       ·      ███████████████████████       1        2     0        1
   ●      ·       ●                                    0        1     0        1
   ·      ●       ●                                    0        1     0        1
   ●      ●       ●      ███████████████████████       1        1     1        1
`],
  [['paths', 'CLI Command Invoked', '--depth', '2', '--gap', '10m'],
    'paths', { from_event: 'CLI Command Invoked', depth: 2, gap: '10 minutes' }, `
   after                  came                             paths  actors  median
1  CLI Command Invok…  →  (the end)            ██████████      3       3       –
                       →  Build Requested      ██████▋         2       2    7.5m
                       →  📊 Dashboard\\u001b…  ███▍            1       1      1m
2  Build Requested     →  (the end)            ██████▋         2       2       –
   📊 Dashboard\\u001…  →  (the end)            ███▍            1       1       –
`],
  [['sessions', '--gap', '15m', '--tag', 'cores:=8', '--tag', 'os=linux'],
    'sessions', { gap: '15 minutes', tags: { cores: 8, os: 'linux' } }, `
began (UTC)       took  events  actor      surfaces  first event
2026-03-11 12:00    0s       1  1000…0003  cli       CLI Command Invoked
2026-03-02 09:00    0s       1  1000…0001  cli       CLI Command Invoked
No room for last event: a wider terminal shows all, and so does --csv.
`],
  [['activity', '--period', 'hour', '--event', 'CLI Command Invoked', '--since', '2026-03-02T09:00Z', '--until', '2026-03-02T12:00Z'],
    'activity', { period: 'hour', event: 'CLI Command Invoked', since: '2026-03-02T09:00Z', until: '2026-03-02T12:00Z' }, `
events  ██▁  at most 1 an hour
actors  ██▁  at most 1 an hour
orgs    ██▁  at most 1 an hour

hour (UTC)                                                  events  actors  orgs
2026-03-02 09:00  ████████████████████████████████████████       1       1     1
2026-03-02 10:00  ████████████████████████████████████████       1       1     1
2026-03-02 11:00                                                 0       0     0
`],
]

describe.each(asked)('actorscope %j', (args, name, named, table) => {
  test('prints tables and charts', async () => {
    expect(drawn(await run(args))).toBe(table)
  })

  test('with --json prints what the Data API answers the same person, one object a line, numbers as numbers', async () => {
    const { data, error } = await (await world.signIn('ada@acme.test')).schema('analytics').rpc(name, named)
    expect(error).toBeNull()
    const { code, stdout, stderr } = await run([...args, '--json'])
    expect({ code, stderr, rows: rowsOf(stdout) }).toEqual({ code: 0, stderr: '', rows: data })
    expect(Object.keys(data[0])).toEqual(questions.find((question) => question.function === name)?.columns)
  })

  test('with --csv prints the same rows, as RFC 4180 has it', async () => {
    const [json, csv] = await Promise.all([run([...args, '--json']), run([...args, '--csv'])])
    const text = (value: unknown) => (value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value))
    expect(parse(csv.stdout, { columns: true, record_delimiter: '\r\n' })).toEqual(
      rowsOf(json.stdout).map((row) => Object.fromEntries(Object.entries(row).map(([column, value]) => [column, text(value)]))))
  })

  test('with --sql prints the query, which Postgres answers an analyst as the command does; it is the same by both doors', async () => {
    const [overHttp, here, json] = await Promise.all([run([...args, '--sql']), run([...args, '--sql'], inPostgres()), run([...args, '--json'], inPostgres())])
    expect(here).toEqual({ code: 0, stdout: expect.stringMatching(/^select \*\nfrom {3}analytics\.[^]+;\n$/), stderr: '' })
    expect(overHttp.stdout).toBe(here.stdout)
    const rows = await world.connectAs(analyst, 'password').unsafe(`select to_json(answer) as row from (${here.stdout.replace(/;\n$/, '')}) as answer`)
    expect({ ...json, stdout: rowsOf(json.stdout) }).toEqual({ code: 0, stdout: rows.map(({ row }) => row), stderr: '' })
    expect(rows.length).toBeGreaterThan(0)
  })
})

describe('who asks', () => {
  const counts = async (env: NodeJS.ProcessEnv) => {
    const { code, stdout, stderr } = await run(['activity', '--period', 'month', '--json', '--since', '2026-03-01', '--until', '2026-04-01'], env)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    return rowsOf(stdout).map(({ events, actors, orgs }) => [events, actors, orgs])
  }

  test('sees what they may: a person their orgs, an API key its app, an analyst and the service role everything', async () => {
    expect(await counts(ada)).toEqual([[10, 3, 2]])
    expect(await counts(asPerson('eve@evil.test'))).toEqual([[1, 1, 1]])
    expect(await counts({ ACTORSCOPE_API_KEY: 'as_local_demo_app' })).toEqual([[1, 1, 1]])
    expect(await counts(inPostgres())).toEqual([[11, 4, 3]])
    expect(await counts({ ACTORSCOPE_SECRET_KEY: secretKey })).toEqual([[11, 4, 3]])
  })

  test('is the person before the API key, that before the service role, and all of them before DATABASE_URL', async () => {
    const secret = { ACTORSCOPE_SECRET_KEY: secretKey }, key = { ACTORSCOPE_API_KEY: 'as_local_demo_app' }, eve = asPerson('eve@evil.test')
    const { access_token } = (await (await world.signIn('eve@evil.test')).auth.getSession()).data.session!
    expect(await counts({ ...inPostgres(stranger), ...secret, ...key, ...eve })).toEqual([[1, 1, 1]])
    expect(await counts({ ...inPostgres(stranger), ...secret, ACTORSCOPE_ACCESS_TOKEN: access_token })).toEqual([[1, 1, 1]])
    expect(await counts({ ...inPostgres(stranger), ...secret, ...key })).toEqual([[1, 1, 1]])
    expect(await counts({ ...inPostgres(stranger), ...secret })).toEqual([[11, 4, 3]])
    const { code, stdout } = await run(['activity', '--json', '--email', 'eve@evil.test'], { ...inPostgres(), ACTORSCOPE_PASSWORD: 'password' })
    expect({ code, events: rowsOf(stdout).map(({ events }) => events) }).toEqual({ code: 0, events: [1] })
  })

  test('gets as many rows as wished, by both doors', async () => {
    const [overHttp, here] = await Promise.all([ada, inPostgres()].map((env) => run(['sessions', '--limit', '2', '--json'], env)))
    expect(rowsOf(overHttp!.stdout).map(({ started_at }) => started_at)).toEqual(['2026-03-11T12:00:00+00:00', '2026-03-09T09:00:00+00:00'])
    expect(here).toEqual(overHttp)
  })

  test('in Postgres is told times in UTC, whatever the time zone of the login', async () => {
    await world.sql.unsafe(`alter role ${analyst} set timezone = 'Pacific/Auckland'`)
    cleanups.push(() => world.sql.unsafe(`alter role ${analyst} reset timezone`))
    const sessions = await run(['sessions', '--limit', '1', '--json'], inPostgres())
    expect(rowsOf(sessions.stdout)).toMatchObject([{ started_at: '2026-03-11T12:00:00+00:00' }])
  })

  test('in Postgres can write nothing by asking, whatever the functions do', async () => {
    const [found] = await world.sql`select pg_get_functiondef(oid) as definition, pg_get_function_arguments(oid) as arguments from pg_proc where oid = 'analytics.surfaces'::regproc`
    cleanups.push(() => world.sql.unsafe(found!.definition))
    await world.sql.unsafe(`create or replace function analytics.surfaces(${found!.arguments}) returns setof analytics.surface_set language plpgsql as $$
      begin insert into tracking.surfaces (surface, channel) values ('spy', 'spy'); end $$`)
    expect(await run(['surfaces'], { DATABASE_URL: world.databaseUrl })).toEqual({
      code: 1, stdout: '', stderr: expect.stringMatching(/^25006: cannot execute INSERT in a read-only transaction\n$/) })
  })
})

test('days and weeks ago begin with the day, in UTC; what is shorter does not', async () => {
  const times = async (since: string, until: string) =>
    [...(await run(['activity', '--since', since, '--until', until, '--sql'])).stdout.matchAll(/ => '(.*)'/g)].map(([, time]) => Date.parse(time!))
  const day = 86_400_000, now = Date.now()
  const [since, until] = await times('2w', '1d')
  expect([since! % day, until! - since!]).toEqual([0, 13 * day])
  expect(Math.floor((now - since!) / day)).toBe(14)
  const [exact] = await times('90m', '1s')
  expect(Math.abs(exact! + 90 * 60_000 - now)).toBeLessThan(60_000)
})

describe('refused', () => {
  test.each([
    [['funnel', 'Build Requested'], ada, 'invalid_steps: .+ \\(.+\\)'],
    [['funnel', 'A', 'B', '--within', '0s'], ada, 'invalid_window: .+ \\(.+\\)'],
    [['retention', 'A', '--period', 'hour'], ada, 'invalid_period: .+ \\(.+\\)'],
    [['active', '--by', 'app'], ada, 'invalid_by: .+ \\(.+\\)'],
    [['paths', 'A', '--depth', '0'], ada, 'invalid_depth: .+ \\(.+\\)'],
    [['sessions', '--gap', '0m'], ada, 'invalid_gap: .+ \\(.+\\)'],
    [['activity', '--since', '2026-03-02', '--until', '2026-03-01'], ada, 'invalid_range: .+ \\(.+\\)'],
    [['activity', '--org', 'acme'], ada, '22P02: .+ \\(Check the ids: they are UUIDs\\.\\)'],
  ])('%j is by both doors, in one line', async (args, env, line) => {
    const [overHttp, here] = await Promise.all([run(args, env), run(args, inPostgres())])
    expect(overHttp).toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(new RegExp(`^${line}\\n$`)) })
    expect({ ...here, stderr: here.stderr.replace('" (', '". (') }).toEqual(overHttp)
  })

  test.each<[string, string[], () => NodeJS.ProcessEnv, string]>([
    ['nobody', ['activity'], () => ({}), 'unauthenticated: Nobody asks: .* \\(Set ACTORSCOPE_EMAIL and ACTORSCOPE_PASSWORD, .*\\)'],
    ['a wrong password', ['activity'], () => ({ ...ada, ACTORSCOPE_PASSWORD: 'wrong' }), 'invalid_credentials: .* \\(.*\\)'],
    ['an API key that was revoked', ['surfaces'], () => ({ ACTORSCOPE_API_KEY: 'as_local_revoked' }), 'invalid_api_key: .* \\(.*\\)'],
    ['an API key that no header carries', ['surfaces'], () => ({ ACTORSCOPE_API_KEY: 'as_é' }), 'setting_invalid: ACTORSCOPE_API_KEY is no API key: .* \\(.*\\)'],
    ['a login that is no analyst', ['activity', '--sql'], () => inPostgres(stranger), '42501: permission denied for schema analytics \\(Grant this login what analysts may: grant analyst to its_name\\.\\)'],
    ['a database without the chapters', ['activity'], () => ({ DATABASE_URL: world.databaseUrl.replace(/[^/]+$/, 'postgres') }), '3F000: .* \\(Apply the chapters in migrations/; actorscope doctor says which are missing\\.\\)'],
    ['an API that is not there', ['activity'], () => ({ ...ada, ACTORSCOPE_URL: 'http://127.0.0.1:9' }), 'network_error: .*'],
  ])('%s is, in one line', async (_, args, env, line) => {
    expect(await run(args, env())).toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(new RegExp(`^${line}\\n$`)) })
  })

  test.each([
    [['funnel'], 'missing required argument \'events\''],
    [['activity', '--csv', '--json'], 'option \'--csv\' cannot be used with option \'--json\''],
    [['activity', '--sql', '--csv'], 'option \'--csv\' cannot be used with option \'--sql\''],
    [['activity', '--since', 'yesterday'], 'option \'--since <time>\' argument \'yesterday\' is invalid. It is a number and ms, s, m, h, d or w, such as 10m.'],
    [['activity', '--since', '2026-02-31'], 'option \'--since <time>\' argument \'2026-02-31\' is invalid. It is no ISO 8601 time, such as 2026-11-05T09:30:00Z.'],
    [['activity', '--since', '2026-11-05 (x)'], 'option \'--since <time>\' argument \'2026-11-05 (x)\' is invalid. It is no ISO 8601 time, such as 2026-11-05T09:30:00Z.'],
    [['activity', '--since', '99999999999d'], 'option \'--since <time>\' argument \'99999999999d\' is invalid. It is too far away.'],
    [['tail', '--every', '0s'], 'option \'--every <time>\' argument \'0s\' is invalid. It is from 10ms to 1d.'],
    [['track', 'X', '--timestamp', '5m'], 'option \'--timestamp <time>\' argument \'5m\' is invalid. It is no ISO 8601 time, such as 2026-11-05T09:30:00Z.'],
    [['funnel', 'A', 'B', '--within', '7'], 'option \'--within <time>\' argument \'7\' is invalid. It is a number and ms, s, m, h, d or w, such as 10m.'],
    [['paths', 'A', '--depth', 'x'], 'option \'--depth <n>\' argument \'x\' is invalid. It is a whole number from 0 to 1000.'],
    [['sessions', '--limit', '0'], 'option \'--limit <n>\' argument \'0\' is invalid. It is a whole number from 1 to 1000000.'],
  ])('%j makes no sense: it is told in one line, and exits 2', async (args, line) => {
    expect(await run(args)).toEqual({ code: 2, stdout: '', stderr: `usage: ${line} (See actorscope ${args[0]} --help.)\n` })
  })

  test('is an answer of which the API gives a part, since half of one would be wrong', async () => {
    const fate = (body: string): Fate => (body.includes('password') ? 'passes'
      : { status: 206, headers: { 'content-type': 'application/json' }, body: '[{"period":"2026-03-02T00:00:00+00:00","events":1,"actors":1,"orgs":1}]' })
    const gateway = await startGateway(world.api.url, fate)
    cleanups.push(gateway.stop)
    expect(await run(['activity'], { ...ada, ACTORSCOPE_URL: gateway.url })).toEqual({
      code: 1, stdout: '', stderr: expect.stringMatching(/^too_many_rows: The answer has more rows than the API gives at once, which is 1\. \(Ask for less, .*\)\n$/) })
  })
})

describe('an answer with nothing in it', () => {
  const exact = 'Names of events are exact: actorscope tail --since 30d shows them.'

  test.each<[string[], string, string]>([
    [['activity', '--app', 'com.none.app', '--since', '2026-01-01'], '', 'Try it without --app, --since.'],
    [['activity', '--event', 'None', '--until', '2026-04-01'], '', `Try it without --until. ${exact}`],
    [['sessions', '--tag', 'os=none', '--json'], '', 'Try it without --tag.'],
    [['retention', 'None'], '', exact],
    [['builds', '--org', orgs.evil, '--csv'], `${questions.find(({ name }) => name === 'builds')!.columns.join(',')}\r\n`, 'Try it without --org.'],
    [['active', '--since', '2026-01-01', '--until', '2026-01-02'], `\
█ returning  ▓ resurrected  ░ new
day                                          actors  returning  resurrected  new
2026-01-01                                        0          0            0    0
`, 'Try it without --since, --until.'],
    [['funnel', 'None', 'Neither'], `\
   step                                          actors  of all  of step  median
1  None                                               0       –
2  Neither                                            0       –        –       –
`, exact],
  ])('%j says what to do, on stderr, and is no error', async (args, stdout, way) => {
    expect(await run(args)).toEqual({ code: 0, stdout, stderr: `There is nothing to show. ${way}\n` })
  })

  test('says how to begin to who may read nothing at all', async () => {
    const nik = asPerson('nik@nowhere.test')
    expect(await run(['activity'], nik)).toEqual({ code: 0, stdout: '', stderr: 'There is nothing to show. You may read no event yet: actorscope track Hello records one.\n' })
    expect(await run(['builds'], nik)).toEqual({ code: 0, stdout: '', stderr: 'There is nothing to show. No build that you may see has ended: actorscope build request asks for one.\n' })
  })
})

describe('what others wrote', () => {
  const evil = '📊 Dashboard\u001b[2J Opened'

  test('has no power over the terminal, and is in a file of CSV as it was', async () => {
    const args = ['paths', evil]
    const env = { ...ada, ACTORSCOPE_URL: world.api.url }
    const [table, csv, json] = [await inTerminal(args, { env }), await inTerminal([...args, '--csv'], { env }), await run([...args, '--json'])]
    for (const { output } of [table, csv]) expect(output.replace(/\u001b\[\d+m/g, '')).not.toMatch(/[\u0000-\u0009\u000b\u000c\u000e-\u001f]/)
    expect(csv.output).toContain(',📊 Dashboard\\u001b[2J Opened,')
    expect((await run([...args, '--csv'])).stdout).toContain(`,${evil},`)
    expect(json.stdout).toContain('📊 Dashboard\\u001b[2J Opened')
    expect(rowsOf(json.stdout)[0]).toMatchObject({ source: evil })
  })

  test('is quoted in SQL so that Postgres reads it as it was, and nobody else as anything', async () => {
    const names = ['it\'s', 'back\\slash\\\'; drop table events; --', evil, 'line\nbreak', ':name $1 %s', '日本 👩‍💻']
    const tags = { 'a\'b\\': ['\u202e', { c: null }], n: 1.5 }
    const statement = toStatement('pg_temp.echo', { names, tags, since: new Date('2026-03-02T09:00:00.123Z'), depth: 3 }, 5)
    expect(statement).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/)
    for (const standard of ['on', 'off']) {
      const [row] = await world.sql.begin(async (tx) => {
        await tx.unsafe(`set local standard_conforming_strings = ${standard}; set local timezone = 'UTC'; create or replace function pg_temp.echo(names text[], tags jsonb, since timestamptz, depth integer)
          returns table (n text[], t jsonb, s text, d integer) language sql as 'select names, tags, since::text, depth'`).simple()
        return tx.unsafe(statement)
      })
      expect(row).toEqual({ n: names, t: tags, s: '2026-03-02 09:00:00.123+00', d: 3 })
    }
  })
})

describe('a terminal', () => {
  const env = () => ({ ...ada, ACTORSCOPE_URL: world.api.url })

  test('is filled as wide as it is, with colours; a pipe has 80 columns and none', async () => {
    const { code, output } = await inTerminal(['funnel', 'CLI Command Invoked', 'Build Requested'], { env: env(), columns: 120 })
    expect(code).toBe(0)
    const [headings, first] = output.split('\r\n')
    expect(headings).toMatch(/^\u001b\[2m {3}step {82}actors {2}of all {2}of step {2}median\u001b\[22m$/)
    expect(first).toContain(`\u001b[36m${'█'.repeat(63)}\u001b[39m`)
  })

  test('has no colours where NO_COLOR does not want them, and a pipe has some where FORCE_COLOR asks for them', async () => {
    const args = ['retention', 'CLI Command Invoked', '--until', '2026-03-23']
    expect((await inTerminal(args, { env: { ...env(), NO_COLOR: '1' } })).output).not.toContain('\u001b')
    expect((await run(args, { ...ada, FORCE_COLOR: '1' })).stdout).toContain('\u001b[38;5;16;48;5;220m100% \u001b[39;49m')
    expect((await run(args, { ...ada, FORCE_COLOR: '1', NO_COLOR: '1' })).stdout).not.toContain('\u001b')
  })

  test('is not all that can be wide: a pipe is as wide as COLUMNS says', async () => {
    const { stdout } = await run(['sessions'], { ...ada, COLUMNS: '130' })
    expect(stdout).toContain('  last event\n')
    expect(stdout).toContain(people.ada)
  })
})

/** What a command printed, as a block of lines. */
function drawn({ code, stdout, stderr }: { code: number | null, stdout: string, stderr: string }): string {
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return `\n${stdout}`
}

type Logged = [at: string, event: string, actor: string, where?: 'acme' | 'demo' | 'evil', channel?: string, tags?: Record<string, string | number>]

/** A log of two weeks of March: what ada, bob and cyd do for Acme, ada for Demo, and eve for Evil. */
async function writeLog(): Promise<void> {
  const { ada, bob, cyd, eve } = people
  const build = (at: string, event: string, actor: string, platform: string): Logged => [at, event, actor, 'acme', 'build-lifecycle', { platform }]
  const log: Logged[] = [
    ['2026-03-02T09:00Z', 'CLI Command Invoked', ada, 'acme', 'cli-usage', { os: 'linux', cores: 8 }],
    build('2026-03-02T09:10Z', 'Build Requested', ada, 'ios'),
    build('2026-03-02T09:40Z', 'Build Succeeded', ada, 'ios'),
    ['2026-03-02T10:00Z', 'CLI Command Invoked', bob, 'acme', 'cli-usage', { os: 'macos' }],
    build('2026-03-02T10:05Z', 'Build Requested', bob, 'android'),
    ['2026-03-03T10:00Z', 'CLI Command Invoked', bob, 'acme', 'cli-usage'],
    ['2026-03-04T08:00Z', 'CLI Command Invoked', ada, 'demo', 'cli-usage'],
    ['2026-03-09T09:00Z', 'CLI Command Invoked', ada, 'acme', 'cli-usage'],
    ['2026-03-09T09:01Z', '📊 Dashboard\u001b[2J Opened', ada, 'acme', 'usage'],
    ['2026-03-11T12:00Z', 'CLI Command Invoked', cyd, 'acme', 'cli-usage', { os: 'linux', cores: 8 }],
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
