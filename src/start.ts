import { spawnSync } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import colors from 'picocolors'
import { publishableKey } from './api.ts'
import { dashboardDir } from './dashboard.ts'
import { StackError } from './errors.ts'
import { serve } from './serve.ts'
import { projectDir, readSettings } from './settings.ts'
import { playStory } from './story.ts'

const print = (text: string): void => console.log(text)

/**
 * `npm start`: starts the local stack, plays the story, and serves until it is told to stop. With `--once` it ends
 * after the story.
 *
 * @returns the exit code: 0 when every step of the story did what it said.
 */
async function main(args: string[], interrupted: AbortSignal): Promise<number> {
  keepDashboard()
  return serve({
    settings: readSettings(process.env),
    print,
    colors,
    play: (apiUrl, eventsFile) => playStory(apiUrl, eventsFile, print),
    once: args.includes('--once'),
    tryIt: (apiUrl) => `To track an event, paste this there, in the project's folder:\n\n${snippet(apiUrl)}`,
    interrupted,
  })
}

/** Builds the dashboard where that was not done, or its sources are newer. */
function keepDashboard(): void {
  const changedAt = (path: string) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
  const sources = join(projectDir, 'dashboard')
  const newest = Math.max(...readdirSync(sources, { recursive: true }).map((name) => changedAt(join(sources, String(name)))))
  if (newest <= changedAt(join(dashboardDir, 'index.html'))) return
  print(`${colors.dim('·')} building the dashboard`)
  const { status } = spawnSync(process.execPath, ['build.mjs'], { cwd: projectDir, stdio: 'inherit' })
  if (status !== 0) throw new StackError('build_failed', 'The dashboard cannot be built: see above.')
}

/** Aborts when the terminal, the system or a parent asks this process to end. */
function onInterrupt(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => controller.abort())
  return controller.signal
}

function snippet(url: string): string {
  return `
node --input-type=module <<'end'
import { createClient } from '@supabase/supabase-js'
import ws from 'ws'
const supabase = createClient('${url}', '${publishableKey}', { realtime: { transport: ws } })
await supabase.auth.signInWithPassword({ email: 'ada@acme.test', password: 'password' })
console.log(await supabase.rpc('track_event', {
  v2: { event: 'Hello', tracking_version: 2, tags: { app_id: 'com.acme.app' } },
}))
end`.trim()
}

const interrupted = onInterrupt()
process.exitCode = await main(process.argv.slice(2), interrupted).catch((error: unknown) => {
  if (interrupted.aborted) return 130
  console.error(error instanceof StackError ? colors.red(`\n${error.message}`) : error)
  return 1
})
