import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { cp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { projectDir } from '../src/settings.ts'
import { readProject } from '../supabase/functions/_shared/project.ts'
import { functionsDir, offline, startDeno, startUpstream } from './doors.ts'
import { temporaryFolder } from './world.ts'

const functions = readdirSync(functionsDir).filter((name) => !name.startsWith('_'))
/** The door for clients of old; the function deliver has tests of its own. */
const doors = functions.filter((name) => name !== 'deliver')
const readJson = (...path: string[]) => JSON.parse(readFileSync(join(projectDir, ...path), 'utf8'))

describe.each(doors)('the edge function %s', (name) => {
  test('is let in without a JWT, since API keys come without one', () => {
    const config = readFileSync(join(projectDir, 'supabase/config.toml'), 'utf8')
    expect(config).toMatch(new RegExp(`^\\[functions\\.${name}\\]\\nverify_jwt = false$`, 'm'))
  })

  test('is deployed with the packages that it is tested with', () => {
    const { hono } = readJson('package.json').devDependencies
    expect(readJson('supabase/functions', name, 'deno.json')).toEqual({
      imports: { 'hono': `npm:hono@${hono}`, 'hono/': `npm:/hono@${hono}/` } })
  })

  test('has types that Deno finds no fault with', async () => {
    const check = await startDeno(['check', ...offline, join(functionsDir, name, 'index.ts')])
    expect(await check.exited, check.output()).toBe(0)
  })

  test('says what is missing where Supabase\'s environment is not there', async () => {
    const run = await startDeno(['run', ...offline, '--no-prompt', '--allow-env', join(functionsDir, name, 'index.ts')])
    expect(await run.exited).toBe(1)
    expect(run.output()).toContain('SUPABASE_URL, and SUPABASE_PUBLISHABLE_KEYS or SUPABASE_ANON_KEY, must be set.')
  })
})

test('supabase functions deploy sends each function with all that it imports, and asks for no JWT', async () => {
  const folder = await temporaryFolder()
  const management = await startUpstream((response, { method }) => {
    response.writeHead(method === 'POST' ? 201 : 200, { 'content-type': 'application/json' })
    response.end(JSON.stringify(method === 'GET' ? [] : { id: '1', slug: 'app', name: 'app', status: 'ACTIVE', version: 1, created_at: 1, updated_at: 1 }))
  })
  try {
    for (const part of ['supabase', 'src']) {
      await cp(join(projectDir, part), join(folder.path, part), { recursive: true, dereference: true })
    }
    await writeFile(join(folder.path, 'profile.yaml'),
      `name: test\napi_url: ${management.url}\ndashboard_url: ${management.url}\nproject_host: localhost\n`)
    const deployed = await runSupabase(folder.path, ['functions', 'deploy', '--use-api', '--remote=abcdefghijklmnopqrst', '--profile=profile.yaml', '--yes'])
    expect(deployed.code, deployed.output).toBe(0)

    const uploads = management.requests.filter(({ method }) => method === 'POST')
    expect(uploads).toHaveLength(functions.length)
    for (const name of functions) {
      const upload = uploads.find(({ url }) => url.includes(`slug=${name}`))?.body.toString() ?? ''
      const files = [...upload.matchAll(/filename="([^"]+)"/g)].map(([, file]) => file!).sort()
      expect(files).toEqual(importedBy(`supabase/functions/${name}/index.ts`).concat(`supabase/functions/${name}/deno.json`).sort())
      expect(upload).toContain(`"entrypoint_path":"supabase/functions/${name}/index.ts"`)
      expect(upload).toContain(`"import_map_path":"supabase/functions/${name}/deno.json"`)
      expect(upload).toContain('"verify_jwt":false')
    }
  } finally {
    await management.close()
    await folder.remove()
  }
})

/** The files of the project that a module is made of, itself among them. */
function importedBy(path: string, found = new Set<string>()): string[] {
  if (found.has(path)) return []
  found.add(path)
  const imports = readFileSync(join(projectDir, path), 'utf8').matchAll(/^(?:import|export)[^']* from '(\.[^']+)'$/gm)
  for (const [, relative = ''] of imports) importedBy(join(path, '..', relative), found)
  return [...found]
}

async function runSupabase(folder: string, args: string[]): Promise<{ code: number | null, output: string }> {
  const child = spawn(join(projectDir, 'node_modules/.bin/supabase'), args, { cwd: folder, env: {
    PATH: process.env.PATH, HOME: folder, NO_COLOR: '1', DO_NOT_TRACK: '1',
    SUPABASE_ACCESS_TOKEN: `sbp_${'0123456789'.repeat(4)}` } })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => { output += chunk })
  const code = await new Promise<number | null>((done) => child.once('close', done))
  return { code, output }
}

describe('a function takes from the environment', () => {
  const url = 'https://abc.supabase.co'
  test.each([
    ['the default publishable key', { SUPABASE_PUBLISHABLE_KEYS: '{"web":"sb_publishable_web","default":"sb_publishable_default"}', SUPABASE_ANON_KEY: 'eyJ.anon.key' }, 'sb_publishable_default'],
    ['the first publishable key, where none is the default', { SUPABASE_PUBLISHABLE_KEYS: '{"web":"sb_publishable_web"}' }, 'sb_publishable_web'],
    ['the anon key, where there is no other', { SUPABASE_ANON_KEY: 'eyJ.anon.key' }, 'eyJ.anon.key'],
    ['the anon key, where the publishable ones are none', { SUPABASE_PUBLISHABLE_KEYS: '{}', SUPABASE_ANON_KEY: 'eyJ.anon.key' }, 'eyJ.anon.key'],
  ])('%s', (_, keys: Record<string, string>, publishableKey) => {
    const environment: Record<string, string> = { SUPABASE_URL: `${url}/`, ...keys }
    expect(readProject((name) => environment[name])).toEqual({ url, publishableKey })
  })
})
