// What differs between a browser, Node, Deno and the edge, asked for at run time: no import, and nothing that a
// bundler would replace.
const runtime = globalThis as unknown as {
  process?: { env?: Record<string, string | undefined>, on?(event: 'beforeExit', listener: () => void): void }
  Deno?: {
    permissions: { querySync(wanted: { name: 'env', variable: string }): { state: string } }
  }
  document?: Listens & { visibilityState: string }
} & Listens
type Listens = { addEventListener(event: string, listener: () => void, options: { signal: AbortSignal }): void }

/** Does something later; does not keep a process alive for it. */
export function later(ms: number, act: () => void): ReturnType<typeof setTimeout> {
  const timer = setTimeout(act, ms)
  timer.unref?.()
  return timer
}

/** Says whether an environment variable is set, and not to nothing, 0 or false. Deno is never made to ask its user. */
export function isSet(variable: string): boolean {
  const { Deno, process } = runtime
  try {
    if (Deno && Deno.permissions.querySync({ name: 'env', variable }).state !== 'granted') return false
    return !/^(0|false|)$/i.test(process?.env?.[variable] ?? '')
  } catch {
    return false
  }
}

/** Calls back when the page is hidden or left, which is the last that a page hears, until it is aborted. */
export function watchPage(leave: () => void): AbortController {
  const { document } = runtime
  const stop = new AbortController()
  if (document) {
    document.addEventListener('visibilitychange', () => { if (document.visibilityState === 'hidden') leave() }, stop)
    runtime.addEventListener('pagehide', leave, stop)
  }
  return stop
}

/** Who has something to do before the process ends. Whoever has not is not held in memory. */
export const unfinished = new Set<() => void>()
// One listener, however many trackers there are. It does nothing to a process that tracks nothing.
runtime.process?.on?.('beforeExit', () => { for (const finish of unfinished) finish() })
