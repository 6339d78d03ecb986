import type { Session, SupabaseClient } from '@supabase/supabase-js'
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import type { Config } from './config.ts'
import { apps, ask, orgs, type App as AppRow, type Org, type Problem } from './questions.ts'
import { useRoute } from './route.ts'
import type { Shell } from './shell.tsx'
import { SignIn } from './sign-in.tsx'
import { Trouble } from './states.tsx'
import { WorldContext, type World } from './world.ts'

/** Signs people in, learns what they may see, and shows the sections. */
export function App({ config, supabase }: { config: Config, supabase: SupabaseClient }) {
  const [session, setSession] = useState<Session | null>()
  const [notice, setNotice] = useState<string>()
  const hadSession = useRef(Object.keys(localStorage).some((key) => /^sb-.*-auth-token$/.test(key)))
  const leaving = useRef(false)
  useEffect(() => {
    const { data } = supabase.auth.onAuthStateChange((_, next) => {
      if (!next && hadSession.current && !leaving.current) setNotice('Your session has ended. Sign in again to go on where you were.')
      if (next) setNotice(undefined)
      hadSession.current = next !== null
      leaving.current = false
      setSession(next)
    })
    return () => data.subscription.unsubscribe()
  }, [])

  const signOut = () => {
    leaving.current = true
    void supabase.auth.signOut({ scope: 'local' })
  }
  // The API may know better than this clock that a token has expired; the session is over where it cannot be renewed.
  const sessionOver = () => void supabase.auth.refreshSession().then(({ error }) => {
    if (error) void supabase.auth.signOut({ scope: 'local' })
  })

  if (session === undefined) return <div class="loading page" role="status"><span class="visually-hidden">Loading …</span></div>
  if (session === null) return <SignIn config={config} supabase={supabase} notice={notice} />
  return <SignedIn key={session.user.id} config={config} supabase={supabase} session={session} signOut={signOut} sessionOver={sessionOver} />
}

type SignedInProps = { config: Config, supabase: SupabaseClient, session: Session, signOut(): void, sessionOver(): void }

function SignedIn({ config, supabase, session, signOut, sessionOver }: SignedInProps) {
  const route = useRoute()
  const [known, setKnown] = useState<{ orgs: Org[], apps: AppRow[], Frame: typeof Shell }>()
  const [problem, setProblem] = useState<Problem>()
  const learn = () => {
    const { signal } = new AbortController()
    setProblem(undefined)
    // The sections, which bring the charts along, come when somebody is to see them.
    Promise.all([ask(supabase, orgs, signal), ask(supabase, apps, signal), import('./shell.tsx')]).then(
      ([orgRows, appRows, { Shell: Frame }]) => setKnown({ orgs: orgRows, apps: appRows, Frame }),
      (reason: Problem) => {
        if (reason.isSessionOver) sessionOver()
        setProblem(reason)
      })
  }
  useEffect(learn, [session.access_token])

  const { id, email = 'Somebody' } = session.user
  const world = useMemo<World | undefined>(
    () => known && { config, supabase, viewer: { id, email }, ...known, route, sessionOver }, [known, route, id])
  if (!world || !known) {
    return problem
      ? <main class="alone"><h1>Actorscope</h1><Trouble problem={problem} retry={learn} /><button type="button" class="button quiet" onClick={signOut}>Sign out</button></main>
      : <div class="loading page" role="status"><span class="visually-hidden">Loading …</span></div>
  }
  return <WorldContext.Provider value={world}><known.Frame signOut={signOut} /></WorldContext.Provider>
}
