import type { ComponentChildren } from 'preact'
import { useRef, useState } from 'preact/hooks'
import { Icon } from './icons.tsx'
import { Problem } from './questions.ts'
import { useWorld, type Answer } from './world.ts'

/** What is shown where there is nothing to show: why, and what to do about it. */
export function Empty({ title, children }: { title: string, children?: ComponentChildren }) {
  return (
    <div class="state">
      <p class="state-title">{title}</p>
      {children}
    </div>
  )
}

/** No events at all: how to send one. */
export function NoEvents() {
  const { apps, config, route, viewer } = useWorld()
  const org = route.params.get('org')
  const app = route.params.get('app') ?? apps.find(({ owner_org }) => !org || owner_org === org)?.app_id
  const isLocal = ['127.0.0.1', 'localhost'].includes(new URL(config.url).hostname)
  const settings = [
    ...config.url === 'http://127.0.0.1:54321' ? [] : [`ACTORSCOPE_URL=${config.url}`],
    ...isLocal ? [] : [`ACTORSCOPE_PUBLISHABLE_KEY=${config.publishableKey}`],
    `ACTORSCOPE_EMAIL=${viewer.email}`,
  ]
  const about = app ? ` --app ${app}` : org ? ` --org ${org}` : ''
  return (
    <Empty title="No events here yet">
      <p>Nothing was recorded that you may see, for what is chosen above. Choose a longer range or another organization, or send an event:</p>
      <Copyable text={`${settings.join(' ')} npx actorscope track Hello${about}`} />
    </Empty>
  )
}

/** What went wrong, in the words of whoever refused, and a way to try again. */
export function Trouble({ problem, retry }: { problem: Problem, retry?(): void }) {
  return (
    <div class="state trouble" role="alert">
      <p class="state-title">{problem.message}</p>
      {problem.details && <p>{problem.details}</p>}
      {problem.hint && <p>{problem.hint}</p>}
      {retry && <button type="button" class="button" onClick={retry}><Icon name="retry" /> Try again</button>}
    </div>
  )
}

/**
 * Shows an answer when it is there; until then that it is awaited, and what went wrong if something did. While another
 * one is awaited, the one before stays as it was, with the words that go with it.
 */
export function Answered<Row>({ answer, empty, children }: {
  answer: Answer<Row>
  /** Shown instead of no rows. */
  empty: ComponentChildren
  children(rows: Row[]): ComponentChildren
}) {
  const { rows, problem, isLoading, retry } = answer
  const shown = useRef<ComponentChildren>(null)
  if (problem) return <Trouble problem={problem} retry={retry} />
  if (!rows) return <div class="loading" role="status"><span class="visually-hidden">Loading …</span></div>
  if (!isLoading) shown.current = rows.length ? children(rows) : empty
  return <div class="answer" aria-busy={isLoading}>{shown.current}</div>
}

/** Text to take along; in a line, where it is an id. */
export function Copyable({ text, isInline }: { text: string, isInline?: boolean }) {
  const [copied, setCopied] = useState(false)
  const copy = () => navigator.clipboard.writeText(text).then(() => {
    setCopied(true)
    setTimeout(() => setCopied(false), 2000)
  }, () => {})
  return (
    <div class={isInline ? 'copyable inline' : 'copyable'}>
      {isInline ? <code>{text}</code> : <pre tabIndex={0}><code>{text}</code></pre>}
      <button type="button" class="button quiet" onClick={copy}><Icon name="copy" /> <span aria-live="polite">{copied ? 'Copied' : 'Copy'}</span></button>
    </div>
  )
}
