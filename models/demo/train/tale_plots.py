"""What the tales tell: H is the hero, F a friend, G a third one; p, p2, p3 are places, t is the thing of the tale."""

INTROS = [
    "Once upon a time, [there was|there lived] {who} named {H}. {hHe} lived in {home}.",
    "Once upon a time, in {home}, there lived {who} [named|called] {H}.",
    "Once upon a time there was {who} who lived in {home}. {hHis} name was {H}.",
    "There once was {who} [named|called] {H}, who lived in {home}.",
    "Long ago, in {home}, there lived {who} [named|called] {H}.",
    "In {home} lived {who}. Everyone called {hhim} {H}.",
    "{H} was {who}. {hHe} lived in {home} with [{hhis} family|{hhis} mother and father|{hhis} grandmother|three old hens|a cat that slept all day].",
    "A long time ago, [when the hills were young|far away from here], there was {who} whose name was {H}. {hHe} lived in {home}.",
    "Once there was {who} named {H}. {H} was [always cheerful|known to everyone for miles around|liked by everyone|the smallest in the family|happy most of the time].",
    "Once upon a time, {H} {h} lived in {home}.",
    "Far away, [beyond the hills|at the end of a winding road|where the river meets the sea], there was {home}, and there lived {who} named {H}.",
]
SCENES = [
    "[High above|Up in the sky], [white clouds|a few small clouds] [sailed by|drifted along] like [sheep|boats|feathers].",
    "[Somewhere|Far away] [a bell rang|a dog barked|an owl called].",
]
CLOSINGS = [
    "¶ And from that day on, {H} and {F} were [the best of friends|never apart for long|always kind to each other].",
    "¶ That night {H} [slept very well|fell asleep with a smile|dreamed happy dreams].",
    "¶ And if you ever go [to that place|there], you may [still see|meet] {H} and {F}, [laughing|playing|walking] together.",
    "¶ {H} [was very happy|had never been so happy|smiled all the way home].",
    "¶ When [the moon came up|the stars came out], {H} was [safe and warm in bed|fast asleep|curled up by the fire], and all was [well|quiet].",
    "¶ And they all lived happily ever after.",
    "¶ {H} never forgot that day.",
    "¶ \"[What a day|What a good day|This was the best day of all]!\" said {H}, and {hhe} [yawned|laughed|closed {hhis} eyes].",
    "¶ Everyone [cheered|laughed|clapped], and {H} [felt warm inside|felt very proud|blushed a little].",
    "¶ The end.",
]

LOST = dict(theme="[losing something|looking for something|a lost thing]", lesson="[friends help each other|it is good to ask for help]", event="lost {hhis} {t}", moral="[After all|You see], things are easier to find when friends look together.", beats=[
    ["{H} had {a}. [It was {hhis} favorite thing in the whole world|{hHe} loved it very much|{hHe} took it everywhere|{hHis} grandmother had given it to {hhim}].",
     "More than anything, {H} loved {hhis} {t}. [{hHe} took it everywhere|It had been a birthday present|{hHe} kept it close all day long]."],
    "¶ [One day|One morning|One cold morning|One Sunday], the {t} was gone! [{H} looked under the bed|{H} looked in every corner of the house|{H} searched high and low], but it was not there.",
    "\"Where [can my {t} be|has my {t} gone|is my {t}]?\" [cried|said|asked] {H}.",
    "?{hHe} was so sad that [{hhe} sat down and cried|a big tear rolled down {hhis} cheek|{hhe} could not eat {hhis} breakfast].",
    ["¶ {H} went {to} to look for it. There {hhe} met {F} {f}. \"Have you seen my {t}?\" asked {H}. \"No, I have not,\" said {F}, \"but I will help you look.\"",
     "¶ {F} {f} [heard|saw] {hhim} and came over. \"What is [wrong|the matter]?\" {fhe} asked. \"I have lost my {t},\" said {H}. \"[Do not worry|Do not be sad|Cheer up],\" said {F}. \"[We will find it together|I will help you find it|Two can look better than one].\""],
    "They looked {at2}. [There was nothing but leaves and stones|They found an old shoe, but no {t}|It was not there]. [Then they|They] looked {at3}. [It was not there either|Nothing|No {t} there].",
    "?\"[I will never find it|It is gone forever],\" [sighed|said] {H}. \"[Do not give up|We must not give up|Let us look a little longer],\" said {F}.",
    ["¶ Then they [saw|met] {G} {g}, who was [carrying something|holding something]. It was the {t}! \"I found this {at},\" said {G}. \"I did not know whose it was. Is it yours?\" \"Yes!\" [cried|shouted] {H}. \"[Thank you, thank you|Oh, thank you]!\"",
     "¶ Just then, {F} [stopped|pointed]. \"[Look|Look over there|What is that]!\" [There, in a little nest|There, under a bush|There, behind a big stone], [lay|was] the {t}. A [magpie|crow|little squirrel] had [taken|carried] it away because it was so pretty. {H} [picked it up and laughed|jumped for joy|hugged it tight].",
     "¶ {H} was so tired that {hhe} sat down and put {hhis} hands in {hhis} [pockets|bag]. And what did {hhe} feel there? The {t}! It had been with {hhim} all the time. {H} and {F} [laughed and laughed|laughed until they fell over]."],
    "\"Thank you for [helping me|looking with me],\" said {H} to {F}. [\"That is what friends are for,\" said {F}.|{F} smiled. \"I liked looking with you,\" {fhe} said.]",
])

FRIEND = dict(theme="[making a friend|friendship|being lonely|a new friend]", lesson="[a smile can make a friend|everyone needs a friend]", event="made a new friend", moral="[It only takes one kind word to make a friend|A friend may be nearer than you think].", beats=[
    "{H} [was often lonely|had no one to play with|had many toys, but no friend]. [Every day {hhe} sat {at} and watched the others play|{hHe} played alone {at}|{hHe} talked to the clouds, but clouds do not answer].",
    "\"I wish I had a friend,\" [{hhe} said to {hself}|{H} said|{hhe} whispered to the moon].",
    "¶ [One day|One afternoon|One spring morning], someone new came {to}. It was {F} {f}. {fHe} [looked shy|did not know anyone|sat down all alone|looked a little sad].",
    ["{H} wanted to say hello, but {hhe} was [afraid|shy]. What if {F} did not like {hhim}? {hHe} [hid behind a tree|looked at {hhis} feet|took a deep breath]. [At last|Then] {hhe} [walked over|went up to {fhim}] and said, \"Hello. I am {H}. [Would you like to play|Do you want to play with me|Would you like to see my {t}]?\"",
     "{H} had {a} with {hhim}. {hHe} thought for a moment. Then {hhe} went over and held it out. \"[Would you like to play with it|Do you want to try it]?\" {hhe} asked. \"My name is {H}.\""],
    "{F} [looked up|smiled] [and {fhis} eyes shone|and {fhis} whole face was bright]. \"[Oh, yes|Yes, please|I would love to],\" said {F}. \"[I was so lonely|Nobody has asked me before|I just moved here, and I do not know anyone].\"",
    "¶ They [played with the {t}|ran up and down the hill|played hide and seek|built a little house of sticks] [all day|until the sun went down|all afternoon]. [They laughed a lot|They told each other jokes|They ate {foods} together|They splashed in the water].",
    "?When {H} fell down, {F} helped {hhim} up. When {F} was thirsty, {H} [brought {fhim} water|showed {fhim} the well].",
    "¶ In the evening {F} asked, \"Can we play again tomorrow?\" \"[Yes|Of course]!\" said {H}. \"[And the day after, too|Every day, if you like].\"",
    "{H} [was not lonely any more|had a friend at last|went home singing].",
])

STORM = dict(theme="[a storm|helping in a storm|kindness]", lesson="[kindness comes back to you|there is always room for a friend]", event="was caught in a storm", moral="A small house is big enough when the heart is big.", beats=[
    "[One evening|One autumn day|One day], dark clouds [came over the hills|filled the sky]. The wind [howled|blew and blew], and [rain began to fall|it began to rain hard].",
    "{H} was [warm and dry|safe] in {hhis} [little house|home]. {hHe} had [a pot of soup on the fire|a warm fire and a cup of tea|a fire and a basket of {foods}].",
    "¶ Knock, knock! Someone was at the door. It was {F} {f}, [wet from head to toe|cold and wet|shivering with cold]. \"May I come in?\" asked {F}. \"[The wind blew my roof away|My house is full of water|I lost my way in the rain].\" \"[Come in, come in|Of course|Quick, come in]!\" said {H}. {hHe} gave {fhim} [a warm blanket|a dry coat|a bowl of hot soup].",
    "¶ Knock, knock! There was {G} {g}, and {ghe} was wet, too. \"Is there room for one more?\" [{ghe} asked|asked {G}]. {H} looked around. The house was very small. \"[We will make room|There is always room|If we sit close, there is room],\" {hhe} said.",
    "They sat [close together|around the fire]. [The thunder rumbled|The thunder went boom], [but inside it was warm|but nobody was afraid]. {F} [told a funny story|sang an old song], and {G} [played on a little flute|made everyone laugh|told a tale about a whale]. They ate {foods} and [listened to the rain|watched the fire].",
    "¶ In the morning the sun was shining. But [oh no|look]! The storm had [broken {H}'s fence|blown down {H}'s apple tree|made a hole in {H}'s roof]. {H} was sad.",
    "\"[Do not worry|Do not be sad],\" said {F}. \"You helped us. Now we will help you.\" {F} [brought wood and nails|fetched a ladder], and {G} [held the boards|found a hammer]. [By noon|Before lunch|Soon] everything was as good as new.",
    "\"Thank you, my friends,\" said {H}. [\"Thank you for opening your door,\" said {G}.|\"One good turn deserves another,\" said {G}.]",
])

HONEST = dict(theme="[honesty|telling the truth|finding something]", lesson="[it is best to be honest|you should give back what is not yours]", event="found something that belonged to {F}", moral="[What is not ours can never make us happy|An honest heart is light].", beats=[
    "[One day|One morning], {H} was walking {at} when {hhe} saw something [in the grass|on the ground|shining in the sun]. It was {a}!",
    "\"[How lovely|What luck|Oh, how pretty]!\" said {H}. \"[I would like to keep it|Now it is mine|I have always wanted one].\" {hHe} [picked it up|put it in {hhis} bag] and [went on {hhis} way|hurried home].",
    "¶ [A little later|Soon], {hhe} [met|saw] {F} {f}. {F} was [crying|looking for something|very sad]. \"I have lost my {t},\" said {F}. \"[My father made it for me|It was a present from my grandmother|I have had it since I was small]. Have you seen it?\"",
    ["{H} felt [hot|cold] all over. {hHe} wanted to keep the {t}. \"No,\" {hhe} said [quietly|in a small voice]. \"I have not seen it.\" {F} [went away slowly|sighed and walked on]. ¶ But {H} was not happy. [The {t} did not look pretty any more|{hHe} could not play with it|At night {hhe} could not sleep]. {hHe} kept thinking of {F}'s sad [face|eyes].",
     "{H} looked at the ground. [It was very quiet|{hHis} heart beat fast]. If {hhe} said nothing, {hhe} could keep the {t}. [But then {hhe} thought of how sad {F} was|But it did not feel right]."],
    "¶ [At last|Then] {hhe} [knew what {hhe} had to do|made up {hhis} mind]. {hHe} went to {F} and held out the {t}. \"[Here is your {t}|This is yours],\" said {H}. \"I found it {at}. [I am sorry|I wanted to keep it, but it is yours].\"",
    "{F} [jumped for joy|hugged the {t}|could not believe {fhis} eyes]. \"Thank you for telling [me the truth|the truth]!\" {fhe} said. \"[That was hard to do|You are a true friend|That was brave].\"",
    "¶ {F} [gave {H} a basket of {foods}|asked {H} to stay and play|shared {fhis} {foods} with {H}]. [They played with the {t} together|They took turns with the {t}] [until it was dark|all afternoon]. {H} felt [light as a feather|much better|happy again].",
])

LEARN = dict(theme="[learning something new|practice|not giving up]", lesson="[practice makes better|you must not give up]", event="learned something new", moral="[Nobody is good at something the first time|If you fall, get up and try again].", beats=[
    "{H} wanted to learn to [swim|ride a bicycle|play the drum|whistle|skate on the ice|dance|climb the tall tree|bake bread|sing|jump over the brook]. [All {hhis} friends could do it|{hHe} had dreamed of it for a long time|{hHe} had seen others do it, and it looked like fun].",
    "¶ [One day|One morning], {hhe} tried. [It was harder than it looked|It did not go well at all|It went all wrong]. [Everyone was watching|{hHe} felt silly|{hHe} almost cried].",
    "\"I will never learn it,\" said {H}, and {hhe} [sat down {at}|went away to be alone {at}|kicked a stone].",
    "¶ {F} {f} [came by|sat down next to {hhim}]. \"What is the matter?\" asked {F}. \"[I tried and tried, but I cannot do it|I am no good at it],\" said {H}. {F} smiled. \"[When I first tried, I could not do it either|The first time I tried, everyone laughed at me]. [Try a little every day|Come, I will show you how. We will go slowly]. [You will see|That is the secret].\"",
    "So {H} tried again. On the first day [it went wrong|it did not work]. On the second day [it went a little better|it almost worked]. [{F} helped {hhim}|{F} cheered for {hhim}|{F} sat by and watched]. \"[Good|Very good|That was better]! Once more,\" said {F}.",
    "?[Sometimes {hhe} was tired|It rained, and {hhe} wanted to stay in bed], but {hhe} did not give up.",
    "¶ And then, [one fine day|after a week|on a sunny morning], {H} could do it! \"Look at me! [I can do it|I am doing it]!\" {hhe} [shouted|called]. {F} [clapped|cheered|jumped up and down]. Even {G} {g} [came to see|stopped to watch].",
    "\"[You did it|I knew you could]!\" said {F}. \"[I just had to keep trying|Thank you for showing me how],\" said {H}.",
    "?The next day, {H} saw {G} trying the same thing. It went all wrong. \"[Do not worry|Do not be sad],\" said {H}. \"I will help you, just as {F} helped me.\"",
])

RESCUE = dict(theme="[helping a small animal|rescuing someone|big and small]", lesson="[even the small can help the big|no good deed is too small]", event="rescued a {small}", moral="[Even the smallest friend can be a great help|No one is too small to help].", beats=[
    "[One day|One morning|One windy day], {H} was [walking|on {hhis} way home|playing] {at} when {hhe} heard a tiny voice. \"Help! Help!\" [it cried|it called].",
    "{H} looked [up and down|left and right|everywhere]. [At last {hhe} saw|There was] a {small}. It [was stuck in some thorns|had fallen into a deep hole|was caught under a heavy branch|was tangled in an old net].",
    "\"[Please help me|I cannot get out],\" said the {small}. \"[Do not be afraid|Hold still],\" said {H}. \"I will [help you|get you out].\"",
    "¶ {H} [pulled and pulled|thought hard], but [it did not work|the {small} did not move]. Then {hhe} had an idea. {hHe} [ran to get {a}|took {hhis} {t}|remembered that {hhe} had {a} in {hhis} bag]. [Very slowly|Gently|Carefully], with the help of the {t}, {hhe} [set the little one free|got the {small} out].",
    "\"Thank you!\" said the {small}. \"You saved me. [One day I will help you, too|If you ever need me, just call].\" {H} [laughed|smiled]. \"[You are so small|But you are so little]! How could you help me?\" [{hhe} asked|{hhe} said kindly].",
    "¶ [Some days later|A week later|Not long after that], {H} [lost {hhis} way {at2}|was walking {at2} when it got dark]. [It was getting dark|There was no moon], and {hhe} could not find the way home. {hHe} [sat down and cried|called out, but nobody came].",
    "Then {hhe} heard a tiny voice. \"{H}! {H}! It is me.\" It was the {small}! \"[I know every stone here|I know the way],\" it said. \"Follow me.\" [Step by step|Slowly], the {small} led {H} [through the dark|past the stones and the roots|all the way home].",
    "¶ At the door stood {F} {f}, who had been [waiting|very worried]. \"[There you are|You are back]!\" cried {F}. {H} [told {fhim} everything|pointed to the {small}]. \"[My little friend saved me|I was wrong],\" {hhe} said. \"[You are small, but you are a big help|Small friends can do big things].\"",
])

SHARE = dict(theme="[sharing|being greedy|food]", lesson="[it is good to share|things taste better when you share them]", event="would not share {hhis} {foods}", moral="[Good things become better when they are shared|A full table is nothing without friends].", beats=[
    "{H} had a big basket of {foods}. [They smelled so good|They were sweet and fresh|There were more than {hhe} could ever eat].",
    "¶ {F} {f} came by. \"[Those look good|What nice {foods}],\" said {F}. \"[I am so hungry|I have not eaten all day]. May I have one?\" \"No,\" said {H}. \"[They are all mine|I want them all for myself].\" {F} [went away sadly|hung {fhis} head and left].",
    "Then {G} {g} came by. \"May I have one, please?\" asked {G}. \"No!\" said {H}, and {hhe} [put {hhis} arms around the basket|hid the basket behind {hhis} back|ran away with the basket].",
    "¶ {H} [carried the basket|took the {foods}] {to} and sat down all alone. {hHe} ate one, and another, and another. [Soon {hhis} tummy hurt|Soon {hhe} felt ill], and [still the basket was half full|there were still so many left].",
    "From {p2} {hhe} could hear the others [laughing|singing and playing]. {H} [felt very lonely|looked at the basket]. \"[It is no fun to eat alone|I have so much, and they have nothing|I was not kind],\" {hhe} thought.",
    "¶ So {H} [got up|took the basket] and went to find {F} and {G}. \"I am sorry,\" {hhe} said. \"[I was greedy|I should have shared]. Please [have some|eat with me].\" {F} looked at {G}, and {G} looked at {F}. [Then they smiled|Then they both sat down].",
    "They ate the {foods} together, [down to the last one|until nothing was left]. [{F} told a joke|{F} had brought some milk], and {G} [sang a song|made them all laugh]. \"[They taste better now|These are the best {foods} in the world],\" said {H}, [with a full mouth|and it was true].",
])

NIGHT = dict(theme="[being afraid of the dark|a noise in the night|being brave]", lesson="[the dark is not so bad when you look closely|being brave means to look even when you are afraid]", event="heard a strange noise at night", moral="Things often look bigger in the dark than they are.", beats=[
    "{H} [was afraid of the dark|did not like the night]. [Every evening {hhe} pulled the blanket over {hhis} head|At night every shadow looked like a monster].",
    "¶ [One night|One dark night], {hhe} woke up. There was a noise! [Tap, tap, tap, it went|Scratch, scratch, it went|Hoo, hoo, it went|Bump, bump, it went]. {H} [sat up in bed|held {hhis} breath|shook from head to toe].",
    "\"[What could it be|Who is there]?\" {hhe} whispered. [Nobody answered|It was quiet for a moment, and then it came again]. \"[Maybe it is a monster|It must be a ghost|What if it is a wolf with big teeth],\" thought {H}.",
    "{hHe} wanted to [hide|call for help]. But then {hhe} thought, \"[If I do not look, I will never know|I must be brave|Just one little look].\" {hHe} [lit a candle|took {hhis} lantern] and [went to the door on tiptoe|went slowly, step by step].",
    "¶ {hHe} opened the door, and there [sat|stood]... {F} {f}! [{fHe} looked cold and sad|{fHe} was shaking, too]. \"[Oh, {H}|Please do not be angry],\" said {F}. \"[I could not sleep|I am afraid of the dark], [and I saw your window|so I came to you].\"",
    "{H} began to laugh. \"And I thought you were a monster!\" {hhe} said. {F} laughed, too. [\"Me? A monster?\" {fhe} said.|\"I am much too small for that,\" {fhe} said.]",
    "¶ [They drank warm milk|They ate {foods}|They sat by the window] and looked at the [stars|moon]. \"[The night is pretty when you are not alone|Look, the dark is full of little lights],\" said {H}.",
    "[After a while|At last] they both fell asleep. And after that night, {H} was [not so afraid of the dark any more|never so afraid again].",
])

BROKE = dict(theme="[telling the truth|breaking something|saying sorry]", lesson="[it is best to tell the truth|saying sorry makes things better]", event="broke {F}'s {t}", moral="[A broken thing can be mended, and so can a mistake|The truth is hard to say, but it makes the heart light].", beats=[
    "{H} [went to visit|was at the house of] {hhis} friend {F} {f}. {F} had {a}. [It stood on a shelf|It was very old|It was {fhis} greatest treasure]. \"Please do not touch it,\" said {F}, \"[it breaks easily|it is very old].\" Then {fhe} went out to [fetch water|get wood|feed the hens].",
    "¶ {H} only wanted to look. {hHe} [reached out one finger|stood on a chair|came closer and closer]. [Crash|Crack|Oh no]! The {t} fell [to the floor|down] and [broke in two|was broken].",
    "{hHis} heart [beat fast|went thump, thump]. \"What shall I do?\" thought {H}. {hHe} [hid the pieces under the rug|put the pieces behind the door|pushed the pieces under the bed].",
    "¶ {F} came back. \"Where is my {t}?\" {fhe} asked. {H} [looked at the floor|turned red]. \"[Maybe the cat took it|I do not know|The wind must have blown it away],\" {hhe} said. {F} [looked everywhere|was very sad]. {H} [felt terrible|had a stone in {hhis} tummy|could not look at {fhim}].",
    "\"{F},\" {hhe} said at last, [and a tear ran down {hhis} cheek|in a very small voice], \"it was me. I [broke|dropped] your {t}, and then I hid it. I am so sorry.\"",
    "¶ {F} was quiet for a [moment|long time]. Then {fhe} [took {hhis} hand|sat down next to {hhim}]. \"[I am sad about the {t}|It was a dear thing to me],\" {fhe} said, \"but [I am glad you told me the truth|a friend is worth more than a {t}]. [Come|Let us see]. [Maybe we can mend it|We can fix it together].\"",
    "They [got some glue|took glue and string] and worked [all afternoon|until evening]. [At last|Then] the {t} was whole again. [You could see a little crack|There was a small line where it had been broken]. \"[Now I like it even more|I will think of you when I see it],\" said {F}.",
])

PARTY = dict(theme="[a birthday|a surprise|a party]", lesson="[your friends do not forget you|love is the best present]", event="thought that everyone had forgotten {hhis} birthday", moral="Those who love you do not forget you.", beats=[
    "It was {H}'s birthday. {hHe} [jumped out of bed|woke up early|put on {hhis} best hat]. \"[Today is my day|I wonder who will come],\" {hhe} said. {hHe} waited, but [nobody came|nobody knocked on the door].",
    "¶ {H} went {to}. There was {F} {f}. \"Good morning, {F},\" said {H}. \"[Do you know what day it is|Is it not a special day]?\" \"[It is Tuesday, I think|A day like any other],\" said {F}. \"I am [very busy|in a hurry]. Goodbye!\" And {fhe} [ran off|hurried away] with [a big bag|something under {fhis} arm].",
    "Then {H} met {G} {g}. \"[Will you play with me|Do you have time for me]?\" asked {H}. \"[Not today|I am sorry, I have no time],\" said {G}, and [{ghe} hid something behind {ghis} back|{ghe} went away quickly].",
    "{H} [hung {hhis} head|walked home slowly]. \"[They have all forgotten|Nobody remembers my birthday],\" {hhe} [said|thought]. [A tear fell on {hhis} nose|{hHe} sat {at2} until the sun was low].",
    "¶ When it was getting dark, {H} [opened the door of {hhis} house|came home]. [It was very quiet|All was dark]. Then... \"Surprise!\" Everyone was there! There were [lanterns|paper stars|candles] [in every corner|on the table], and a big cake with [{foods}|honey|cream] on top.",
    "\"[Did you think we had forgotten|Happy birthday, {H}]?\" [laughed|asked|cried] {F}. \"We were [getting everything ready|baking all day]!\" {F} gave {hhim} {a}, and {G} gave {hhim} [a warm scarf|a big hug|a basket of {foods}].",
    "They [danced and sang|played games|ate cake] [until the moon was high|until late at night]. \"[This is the best birthday ever|Thank you all],\" said {H}.",
])

FETCH = dict(theme="[a long journey|courage|helping someone who is ill]", lesson="[love makes us brave|step by step you can go far]", event="went on a long journey to help {F}", moral="[The longest way is made of small steps|Whoever goes for a friend never goes alone].", beats=[
    "{H}'s [best friend|dear friend] was {F} {f}. [One winter|One day], {F} [fell ill|became very ill]. {fHe} [lay in bed|coughed all day] and [could not eat|did not laugh any more].",
    "\"There is a [blue|golden|white|silver] flower [on top of the mountain|on the other side of the great forest|on the island in the lake],\" said [the old owl|the doctor|grandmother]. \"A tea from that flower [would help|will make {fhim} well]. But the way is long.\" \"I will go,\" said {H}.",
    "¶ {hHe} packed some {foods} and {a} and set off. First {hhe} came to a [wide|wild] river. [There was no bridge|The bridge was broken]. {H} [found a fallen tree and walked across it|made a raft from old logs|jumped from stone to stone], and {hhe} did not look down.",
    ["Then {hhe} met {G} {g}, who sat by the road and cried. \"I am so hungry,\" said {G}. {H} had only a few {foods} left, but {hhe} gave them to {ghim}. \"You are kind,\" said {G}. \"[I know the mountains well|I know where the flower grows]. I will show you the way.\"",
     "Then a thick fog came down. {H} could not see {hhis} own feet. \"Who is there?\" called a voice. It was {G} {g}. \"[I know this place even with my eyes closed|I have walked here a hundred times],\" said {G}. \"Hold on to me.\" And so they went on together."],
    "It [began to snow|grew cold and dark]. {H} was [tired|so tired that {hhe} could hardly walk]. \"[Only one more step|I must think of {F}],\" {hhe} said to {hself}, \"and then one more.\"",
    "¶ And there it was! The flower [shone like a little star|stood between two rocks]. {H} picked it [very carefully|gently] and [ran|hurried] home, [over the river and through the woods|as fast as {hhis} legs could carry {hhim}].",
    "They made a hot tea from the flower. {F} drank it [slowly|to the last drop] and fell asleep. In the morning {fhe} [opened {fhis} eyes|sat up] and said, \"[I am hungry|I feel well again]!\" {H} [laughed and cried at the same time|danced around the bed].",
    "\"You went so far for me,\" said {F}. \"[You would do the same for me|It was only a long walk],\" said {H}.",
])

SEED = dict(theme="[a garden|being patient|a little seed]", lesson="[good things take time|it pays to be patient]", event="planted a seed", moral="[Good things need time|You cannot hurry a flower].", beats=[
    "[One spring day|One day in spring], {F} {f} gave {H} a [tiny|little|small brown] seed. \"[Plant it|Put it in the ground] and [take good care of it|give it water every day],\" said {F}, \"and [you will see something wonderful|wait and see].\"",
    "{H} [dug a little hole|made a hole with {hhis} finger] {at}, put the seed in, and [covered it with earth|gave it some water]. Then {hhe} sat down and waited. [Nothing happened|An hour went by, but nothing happened].",
    "¶ The next day {H} [ran to look|looked again]. [There was only brown earth|Nothing]! \"[Grow, little seed|Hurry up],\" {hhe} said. {hHe} [sang to it|told it a story|danced around it]. [Still nothing|But the seed slept on].",
    "\"[Maybe I should dig it up and look|It does not work],\" said {H}. \"[No, no|Do not do that],\" said {F}. \"[It is working hard under the ground|A seed needs time]. You must be patient.\"",
    "?{G} {g} came by and laughed. \"[You are watering the mud|There is nothing there],\" said {G}. But {H} [did not listen|went on watering].",
    "¶ So {H} waited. {hHe} gave it water when it was dry. {hHe} [pulled out the weeds|chased the snails away]. [It rained, and the sun shone|Days went by]. And one morning there was a tiny green [leaf|tip]!",
    "\"It is growing!\" [shouted|cried] {H}. Every day it was a little taller. First it was as high as {hhis} [knee|foot], then as high as {hhis} [nose|head]. [In summer|At last] it had [a big yellow flower, as round as the sun|red flowers, and the bees came from far away|a pumpkin, so big that {hhe} could sit on it].",
    "¶ \"[How beautiful|What a wonder]!\" said {F}. \"[It was worth waiting for|I am glad I waited],\" said {H}. In autumn {hhe} [found new seeds and gave one to {G}|kept the seeds for the next spring|gave a seed to each of {hhis} friends].",
])

RACE = dict(theme="[a race|being too proud|winning and losing]", lesson="[it is better to help than to win|friends are worth more than a prize]", event="ran in a race", moral="[To win is nice, but to be kind is better|A kind heart wins more than a fast foot].", beats=[
    "[Every summer|Once a year], there was a big race {at}. The winner got {a}. {H} [wanted to win|had practiced for weeks].",
    "\"I am the fastest of all,\" said {F} {f}. \"[Nobody can beat me|You will only see my back].\" {H} said nothing and [tied {hhis} shoes|looked at the road|took a deep breath].",
    "¶ \"Ready, steady, go!\" Off they went, [past {p2}|over {p2}] and [past {p3}|around {p3}]. {F} was [first|in front], and {H} was right behind {fhim}. [The crowd cheered|Everyone shouted].",
    "Then, near {p3}, {F} [looked back to laugh|turned around to wave], and {fhe} did not see the [stone|root|hole]. Bump! {F} fell down and [hurt {fhis} foot|could not get up]. \"Ow!\" cried {F}.",
    "¶ {H} [could see the end of the race|was alone in front now]. {hHe} could win! But {hhe} [heard {F} cry|looked back]. {hHe} stopped, turned around, and [ran back|went to {fhim}]. \"[Lean on me|Put your arm around me],\" said {H}. \"We will walk together.\"",
    "{G} {g} ran past them and won. But [when {H} and {F} came in, very slowly, arm in arm|when the two of them came over the line, last of all], everyone [stood up|cheered] and clapped, even louder than before.",
    "\"Why did you stop?\" asked {F}. \"You could have won.\" \"[You needed help|A race comes every year, but there is only one you],\" said {H}. {F} [looked down|was quiet]. \"[I am sorry that I laughed at you|I was too proud],\" {fhe} said.",
    "?{G} came over with the {t}. \"[I think this belongs to you|You are the real winner],\" said {G}, and gave it to {H}.",
])

WISH = dict(theme="[a wish|magic|being content]", lesson="[what you have may be just right|be careful what you wish for]", event="got three wishes", moral="[Often we already have what we need|Be careful what you wish for].", beats=[
    "[One day|One evening], {H} found {a} {at}. {hHe} [rubbed it clean|picked it up], and [poof|all at once], a [tiny fairy|little old man with a long beard|small blue spirit] jumped out. \"[Thank you for setting me free|I was asleep in there for a hundred years]! You may have three wishes.\"",
    "¶ {H} thought and thought. \"I wish [to be as tall as a tree|to be very, very big]!\" {hhe} said. Whoosh! {hHe} grew and grew. [{hHis} head bumped into a cloud|The birds flew around {hhis} ears]. But {hhe} was too big for {hhis} house, and [{hhis} friends ran away from {hhim}|{F} {f} could not hear {hhim}].",
    ["So {H} used the second wish. \"I wish that everything I touch turns into {foods}!\" [{hHe} loved {foods}|{hHe} was so hungry]. {hHe} touched a stone, and it was made of {foods}. {hHe} touched {hhis} hat, and it was made of {foods}, too. Soon {hhe} was [sick of them|tired of {foods}], and {hhe} was afraid to hug {hhis} friends.",
     "So {H} used the second wish. \"I wish to be [rich like a king|the richest of all]!\" At once {hhe} was sitting on a mountain of gold. But the gold was [cold and hard|cold], and {hhe} could not eat it. And up there {hhe} was all alone."],
    "¶ {H} [sat down and cried|sighed a deep sigh]. There was only one wish left. {hHe} could wish for [a castle|a ship|anything in the world]. {hHe} thought of {hhis} little [bed|house], of [warm soup|the smell of bread], and of {F}.",
    "\"I wish,\" said {H}, \"that everything was as it was [before|this morning].\" The little one [smiled|nodded]. \"[That is the wisest wish of all|A good wish],\" it said, and it was gone.",
    "¶ {H} was {hself} again. {hHe} ran home [as fast as {hhe} could|over the hill]. {F} {f} was [waiting at the door|just setting the table]. \"Where have you been?\" asked {F}. \"[Far away|On top of the world],\" said {H}, \"but [it is better here|I like it here best].\"",
])

BUILD = dict(theme="[building something|working together|a big job]", lesson="[together we can do more than alone|many hands make light work]", event="built a bridge with {hhis} friends", moral="[Many hands make light work|What one cannot do, three can].", beats=[
    "There was a stream {at}, and [every day {H} had to walk a long way around it|nobody could get across without getting wet feet]. \"I will build a bridge,\" said {H}. \"[I can do it all by myself|I do not need any help].\"",
    "¶ {hHe} [dragged a big log|carried heavy stones] to the stream. It was [hard work|so heavy]. {hHe} pushed and pulled. Splash! [The log fell into the water and floated away|The stones rolled into the water].",
    "{F} {f} came by. \"Can I help you?\" asked {F}. \"[No, thank you|No], I can do it alone,\" said {H}. {hHe} tried again. Splash! This time {H} fell in, too. [{hHe} was wet and angry|Water ran out of {hhis} ears].",
    "¶ {H} sat down [on the bank|in the grass] and [dried {hhis} feet|sighed]. {F} sat down next to {hhim}. \"[It is a very good plan|A bridge is a fine idea],\" said {F}, \"but it is [a big job for one|too much for one alone].\" {H} looked at the stream. \"[You are right|Maybe you are right],\" {hhe} said. \"Will you help me?\" \"[Of course|With pleasure],\" said {F}.",
    "{F} [held the log|tied the ropes], and {G} {g} came with [a saw|a hammer and nails]. {H} [showed them where to put each board|counted the boards]. They [sang while they worked|worked until noon], and they shared {foods} in the shade.",
    "¶ [By evening|When the sun went down] the bridge was done. It was [strong and wide|a fine bridge]. Who should go first? \"[All together|The three of us],\" said {H}. They took each other's hands and [walked|marched] across, and [nobody got wet|nothing even creaked].",
    "\"[We did it|Look what we made]!\" said {H}. \"Alone I only made a splash. Together we made a bridge.\" [They all laughed.|{G} laughed so loudly that the ducks flew up.]",
])

WOODS = dict(theme="[getting lost|finding the way home|the forest]", lesson="[stay on the path|home is the best place]", event="got lost in the woods", moral="[There is no place like home|When you are lost, stay calm and ask for help].", beats=[
    "\"Do not leave the path,\" {H}'s [mother|grandmother|father] always said. [One day|One sunny day], {H} went into the woods to pick berries. [At first {hhe} stayed on the path|The sun was bright, and {hhe} hummed a song].",
    "¶ Then {hhe} saw a [blue butterfly|beautiful bird|yellow bird]. \"[How pretty|Wait for me]!\" called {H}, and {hhe} ran after it, [left and right|over roots and under branches], deeper and deeper into the woods. [At last it flew away over the trees|Then it was gone].",
    "{H} looked around. [Every tree looked the same|There was no path any more]. It was [getting dark|very quiet]. \"Hello?\" {hhe} called. Only the [wind|echo] answered. {H} [was afraid|began to cry].",
    "¶ [Something rustled|Two eyes shone in the dark]. Out of the bushes came {F} {f}. \"Why are you crying?\" asked {F}. \"I [left the path|ran after something pretty], and now I am lost,\" said {H}. \"[Dry your tears|Do not be afraid],\" said {F}. \"[I live here|I know these woods].\"",
    "{F} looked [up at the sky|at the trees]. \"[Do you see that bright star? It stands over the village|The moss grows on this side of the trees, so we must go that way],\" {fhe} said. They walked [hand in hand|side by side]. {F} [told {hhim} the names of the stars|carried {hhis} basket|hummed a quiet tune], and {H} was not so afraid any more.",
    "¶ At last they saw a light. It was {H}'s house! [Mother|Grandmother|Father] [stood at the door with a lantern|came running]. \"[There you are|My dear {H}]! I was so worried.\" \"I am sorry,\" said {H}. \"I left the path. But {F} brought me home.\"",
    "{F} [had to stay for supper|got a bowl of hot soup|got the biggest piece of cake]. [After that|From then on], when {H} went into the woods, {hhe} stayed on the path, and {F} [often walked beside {hhim}|came along].",
])

QUARREL = dict(theme="[a quarrel|making up|saying sorry]", lesson="[it is good to say sorry|a friend is worth more than a toy]", event="had a quarrel with {F}", moral="Sorry is a small word, but it can open a big door.", beats=[
    "{H} and {F} {f} were best friends. [They did everything together|They played together every day {at}]. But one day they [found|both saw] {a} {at2}.",
    "\"I saw it first!\" said {H}. \"No, I saw it first!\" said {F}. {H} pulled on one side, and {F} pulled on the other. \"It is mine!\" \"No, mine!\" They pulled [and pulled|harder and harder], until [both fell down in the mud|rip! crack! it was broken].",
    "\"[It is all your fault|I will never play with you again]!\" shouted {F}. \"[Go away|I do not need you]!\" shouted {H}. And they went home, [one to the left and one to the right|each on a different road].",
    "¶ The next day {H} played alone. [{hHe} built a tower, but there was no one to see it|{hHe} told a joke, but there was no one to laugh]. {hHe} [looked over at {F}'s house|missed {F} very much]. But {hhe} was too proud to go there.",
    "{F} was [sad, too|just as sad]. {fHe} [sat at the window|did not want to eat]. {G} {g} [came by and|saw it and] shook {ghis} head. \"[Two sad friends and one broken {t}|All this because of a {t}],\" said {G}. \"[Which of them do you miss|What is more important]?\" ",
    "¶ {H} thought about it [all night|for a long time]. In the morning {hhe} [went|ran] to {F}'s house. But halfway there, {hhe} [met|bumped into] {F}, who was on the way to {hhim}! \"I am sorry,\" said {H}. \"I am sorry,\" said {F}, at the very same time. They [looked at each other and laughed|fell into each other's arms].",
    "They [mended the {t}|cleaned the {t}] together. \"[You have it today, and I will have it tomorrow|We can both play with it],\" said {H}. [And that is what they did.|And so they did, and they never fought about it again.]",
])

TRADE = dict(theme="[trading|the market|a present]", lesson="[a gift from the heart is worth more than gold|it is good to be generous]", event="went to the market with {a}", moral="What you give with love is never lost.", beats=[
    "[One day|One market day], {H} took {a} and went to the market. {hHe} wanted to trade it for a present for {hhis} [mother|grandmother|sister], [whose birthday was the next day|who was ill in bed].",
    "¶ On the way {hhe} met {F} {f}. \"[What a fine {t}|I have always wanted a {t} like that],\" said {F}. \"I will give you this sack of {foods} for it.\" {H} thought that was fair, so they traded.",
    "A little later {hhe} met {G} {g}, who [was so hungry that {ghe} could not walk|had three hungry children at home]. {H} looked at the {foods}, and {hhe} looked at {G}. \"Take them,\" said {H}. \"You need them more than I do.\" \"[I have nothing to give you but this old pot|I can only give you this old pot],\" said {G}.",
    "¶ {H} went on with the old pot. It began to rain, and [{hhe} put the pot on {hhis} head|the rain went plip, plop on the pot]. \"[Now I have only an old pot for a present|What a poor present],\" {hhe} thought, and {hhe} was a little sad.",
    "But at home {hhe} rubbed the pot with a cloth, [and rubbed and rubbed|until {hhis} arm was tired], and [under the dirt it was shining copper|it began to shine like gold]! {H} filled it with earth and planted a [rose|sunflower|little apple tree] in it.",
    "¶ \"[That is the most beautiful present I have ever had|Oh, how lovely]!\" said the one who got it, and [gave {hhim} a big kiss|hugged {hhim} tight]. And in the evening {F} and {G} came, too. {F} brought the {t} and [played with {H}|gave it back as a gift], and {G} brought [fresh bread|a cake].",
])

SLEEP = dict(theme="[bedtime|going to sleep|the moon]", lesson="[a quiet heart sleeps well|sleep comes when you stop chasing it]", event="could not sleep", moral="Good night, and sleep well.", beats=[
    "One night {H} could not sleep. {hHe} turned to the left, and {hhe} turned to the right. {hHe} counted sheep, but [the sheep would not stand still|the sheep only made {hhim} laugh].",
    "¶ So {H} got up and went outside. The moon was [big and round|thin and bright]. \"Moon, I cannot sleep,\" said {H}. The moon [said nothing|only smiled].",
    "{at} {hhe} met {F} {f}, who was still awake. \"How do you fall asleep?\" asked {H}. \"I [listen to the wind|drink a cup of warm milk|think of something nice],\" said {F}. \"Try it.\" {H} tried it. It was nice, but {hhe} was still awake.",
    "{at2} {hhe} met {G} {g}. \"How do you fall asleep?\" asked {H}. \"I [make myself round like a ball|breathe slowly, in and out|sing a little song],\" said {G}. \"Try it.\" {H} tried it. It was nice, but {hhe} was still awake.",
    "¶ \"[Maybe I will never sleep again|What shall we do],\" said {H}. \"[Come|Let us sit down],\" said {F}. The three of them sat [in the soft grass|close together under a blanket]. {F} told a story about [a boat that sailed to the stars|a snail that wanted to see the sea|a cloud that was afraid of heights]. {G} [hummed quietly|held {hhis} hand].",
    "The story went on and on, [and {F}'s voice was soft|slow and slower]. When the story was over, {F} asked, \"Did you like it, {H}?\" But {H} did not answer. {hHe} was fast asleep.",
    "¶ {F} and {G} carried {hhim} home and [put {hhim} to bed|pulled up the blanket]. \"Good night, {H},\" they whispered. And the moon [looked in through the window|shone until morning].",
])

RIDDLE = dict(theme="[a king and a riddle|being clever|a dragon]", lesson="[a clever head beats a strong arm|a kind word is stronger than a sword]", event="went to see the dragon", moral="[A kind word can do what a sword cannot|Ask first, and fight never].", beats=[
    "In those days, a dragon came to [live on the mountain|the mountain near there]. Every night it [roared|cried] so loudly that nobody could sleep. The king was [very tired|tired and angry]. \"Whoever [makes the dragon quiet|brings back the quiet] shall have {a} and a bag of gold,\" said the king.",
    "¶ Many strong [knights|men] went up the mountain [with swords and shields|on tall horses], but they all came [running back|back with burned trousers]. \"It is [too big|too wild]!\" they said.",
    "\"I will go,\" said {H}. Everyone laughed. \"You? You have no sword!\" \"[I do not need a sword|I only want to talk to it],\" said {H}. {hHis} friend {F} {f} gave {hhim} a basket of {foods} for the way.",
    "¶ {H} climbed up and up until {hhe} came to a dark cave. Inside were two yellow eyes. \"Who are you?\" roared the dragon. {H}'s knees shook, but {hhe} said, \"I am {H}. [Good evening|I have brought you something]. Why do you roar every night?\"",
    "The dragon was quiet. [Nobody had ever asked it before|A big tear rolled down its nose]. \"[I have a thorn in my foot|My tooth hurts so much|I am so lonely up here],\" said the dragon, \"and I cannot [help it|sleep].\"",
    "[\"Let me see,\" said {H}. {hHe} came close and, with a careful hand, {hhe} helped the dragon.|\"You should have told us,\" said {H}. {hHe} sat down by the dragon and took care of it.] [\"Does it feel better?\" asked {H}.|It took a while, but then it was better.] \"[Oh, that is good|I feel so much better],\" said the dragon, and it ate the {foods} with {hhim}.",
    "¶ That night [it was so quiet that you could hear the snow fall|all the people slept like babies]. {H} got the {t} and the gold, and {hhe} shared the gold with {F}. And the dragon? [It came down to the village on Sundays and gave rides to the children|It lit the fires in winter, and everyone was glad to have it].",
])

STAR = dict(theme="[a star|the night sky|a fallen star]", lesson="[some things are too beautiful to keep|you must let go of what you love]", event="found a fallen star", moral="What we love must be free.", beats=[
    "[One night|One clear night], {H} [looked out of the window|sat {at}] and saw a star fall from the sky. It fell [and fell|in a long bright line], down behind {p2}.",
    "{hHe} [put on {hhis} coat|took a basket] and [ran|went] to look for it. And there, in the [grass|leaves|moss], lay a tiny star. It [glowed softly|blinked|was warm like an egg]. \"Where am I?\" [it asked|asked the star].",
    "¶ {H} took the star home and put it [in a glass|on the shelf|next to {hhis} bed]. Now {hhis} room was bright all night. [{F} {f} came to see it|{F} {f} came, and {fhis} eyes grew big]. \"[You are so lucky|How wonderful],\" said {F}.",
    "But the next night the star was [not so bright|a little paler], and the night after that it was [only a weak spark|almost dark]. \"What is [wrong|the matter]?\" asked {H}. \"I miss [my sisters|the sky|my place in the sky],\" said the star. \"[Stars cannot shine in a room|I am too far from home].\"",
    "¶ {H} [was sad|had a lump in {hhis} throat]. {hHe} wanted to keep the star. But {hhe} did not want it to go out. \"[I will bring you home|You must go home],\" {hhe} said. But how? \"[I know|We need to go up high],\" said {F}. \"We will [climb the highest hill|tie it to a kite].\"",
    "They climbed up, [over stones and roots|step by step], until the whole world lay dark below them. {H} held the star up [as high as {hhe} could|in both hands]. The wind came and [lifted it up|took it gently]. Up and up it flew, and it grew brighter and brighter.",
    "¶ \"Thank you!\" it called. And now, [every evening|every clear night], one star [blinks twice|shines right over {H}'s house]. \"[That is my star|Good night, star],\" says {H} and waves.",
])

MAP = dict(theme="[a treasure|an old map|an adventure]", lesson="[the best treasure is a friend|the way can be better than the gold]", event="found an old treasure map", moral="[The best treasure does not fit into a chest|Gold is good, but a friend is better].", beats=[
    "[One rainy day|One day], {H} found an old map [in the attic|under a loose board|in a dusty book|in a bottle {at}]. There was a red cross on it! \"A treasure map!\" {hhe} cried, and {hhe} ran to {F} {f}.",
    "\"[Shall we go and find it|Do you want to come]?\" asked {H}. \"[Yes|Oh, yes]!\" said {F}. They packed {foods}, {a}, and a [shovel|spade], and off they went.",
    "¶ First they [went|walked] {to}. \"The map says twenty steps to the north,\" said {H}. They counted together, \"One, two, three...\" [At step twelve {F} fell over a root|At step nine they forgot to count and had to start again], and they laughed.",
    "Then they came {to2}. [A big goose|An angry goose|A large goat] stood in the way and would not let them pass. \"What shall we do?\" whispered {F}. {H} [gave it some of the {foods}|bowed and said, \"Good day\"], and it [stepped aside|let them go by].",
    "¶ At last they came {to3}. \"Here is the place!\" said {H}. They dug and dug. [Their arms were tired|The hole was already deep]. Then, clonk! There was [a wooden box|an iron box|a little chest].",
    "[{H} held {hhis} breath|Their hearts beat fast]. {F} opened the lid. Inside there was [no gold|no silver]. There was only [a letter|a piece of paper]. {H} read, \"[Whoever reads this has come a long way. Look at the one who came with you. That is your treasure|The treasure is the one who stands beside you].\"",
    "¶ {H} looked at {F}, and {F} looked at {H}. Then they [began to laugh|both smiled]. \"[It is true|The letter is right],\" said {H}. They [put a button, a feather and a new letter in the box|put the letter back] and [closed it again|buried the box again], for the next one to find. And on the way home they ate the rest of the {foods}.",
])

SNOW = dict(theme="[winter|snow|a snowman]", lesson="[it is good to care for others in the cold|every season brings its joys]", event="built a snowman", moral="Winter is warm when friends are near.", beats=[
    "[One winter morning|One morning in winter], everything was white. It had snowed all night! {H} [put on {hhis} boots|jumped out of bed] and [ran outside|ran into the snow].",
    "{F} {f} was already there. \"[Let us build a snowman|We could build a snowman]!\" said {F}. They rolled a big ball for the [belly|body] and a small ball for the head. They used [stones|nuts|buttons] for the eyes and a carrot for the nose. {H} gave it {hhis} own [hat|scarf].",
    "¶ \"[He looks lonely|He must be cold],\" said {F} in the evening. \"[Snowmen like the cold|He is made of snow],\" said {H}, but {hhe} [thought about it, too|looked back twice].",
    "That night, {H} heard [a soft knock|a little cough]. {hHe} looked out. The snowman was [looking at {hhim}|smiling]! \"[Do not be afraid|Good evening],\" said the snowman. \"I can talk, but only at night. [In the old shed {at} there is someone who needs help|Someone is cold over there, {at}]. I cannot go. My feet are made of snow.\"",
    "¶ {H} [woke {F}|ran to get {F}], and together they went through the deep snow with a lantern. And there, under [an old sack|some straw], lay a [tiny|little] {small}. It was [so cold that it could not move|shaking with cold].",
    "They [wrapped it in a blanket|put it under {H}'s coat] and carried it home. They gave it [warm milk|some crumbs and a warm place by the stove]. In the morning it [opened its eyes|was well again]. \"Thank you,\" it said, \"[the white man in the garden told me that you would come|I knew that someone would come].\"",
    "¶ The {small} stayed until spring. When the sun grew warm, the snowman became [smaller and smaller|thin]. \"[Do not be sad|I will come back with the snow],\" he whispered. And where he had stood, there grew [the first snowdrop|a ring of little white flowers].",
])

MUSIC = dict(theme="[music|a song|being different]", lesson="[everyone has a song of their own|it is fine to be different]", event="could not sing like the others", moral="Every voice is needed in the song.", beats=[
    "In the place where {H} lived, everyone loved to sing. [Every evening they met {at}|On Sundays they all sang together {at}]. But when {H} sang, it sounded like [a rusty door|an old wheel|a frog with a cold].",
    "\"[Please sing a little softer|Maybe you could just listen],\" said {F} {f}. {H} [closed {hhis} mouth|went red] and [did not sing any more|went away quietly].",
    "¶ {hHe} sat {at2}, all alone, and [tapped with a stick on a log|drummed with {hhis} fingers on an old bucket]. Tap, tap, tap-a-tap. It [sounded good|made {hhim} feel better]. {hHe} tapped [faster|louder], and [the birds began to listen|even the leaves seemed to dance].",
    "{G} {g} came by and stopped. \"What is that?\" asked {G}. \"[Oh, just a noise|It is nothing],\" said {H}. \"I cannot sing, so I tap.\" \"But my feet want to dance!\" said {G}, and {ghe} [danced|jumped] around the log.",
    "¶ That evening, {G} took {hhim} by the hand and led {hhim} back to the others. \"[Listen|You must hear this],\" said {G}. {H} was [shy|afraid], but {hhe} began. Tap, tap, tap-a-tap. [The singers looked up|It was quiet at first]. Then {F} began to sing to it, and one after another they all [joined in|sang along].",
    "It had never sounded so [good|merry]. [Everyone danced|Even grandmother danced] until the stars came out. \"I am sorry,\" said {F}. \"[I did not know that you had such music in you|We need you]. Will you play with us every evening?\" \"[Gladly|Yes],\" said {H}, and {hhe} [beamed|tapped once more].",
])

BREAD = dict(theme="[baking|a mistake|bread]", lesson="[a mistake can turn into something good|you should not be afraid of mistakes]", event="made a mistake in the bakery", moral="Some mistakes are the beginning of something new.", beats=[
    "{H} [helped in the bakery|worked for the old baker]. Every morning {hhe} [got up before the sun|lit the oven] and made [bread|buns] for [the whole village|everyone]. {hHe} wanted to do everything right.",
    "¶ One morning {hhe} was [very sleepy|still tired]. {hHe} [dropped a jar of honey into the dough|put nuts into the dough instead of salt|mixed the sweet berries into the bread]. \"Oh no!\" said {H}. \"[Now it is all spoiled|What have I done]!\" But there was no time to make a new one.",
    "{hHe} put it in the oven with a heavy heart. \"[Nobody will want to eat it|They will all be angry with me],\" {hhe} thought. {hHe} wanted to [hide behind the flour sacks|run away].",
    "¶ {F} {f} was the first to come in. \"[What smells so good|What is that wonderful smell]?\" asked {F}. \"I am sorry,\" said {H}. \"I made a mistake. The bread is not like it should be.\" \"Let me try,\" said {F}. {fHe} took a small bite. Then {fhe} took a big bite.",
    "\"[This is the best bread I have ever eaten|It is wonderful]!\" said {F}, and {fhe} ran out to tell the others. Soon {G} {g} came, and after {ghim} came [the whole street|everyone else]. They [stood in a long line|all wanted some].",
    "¶ By noon every loaf was gone. The old baker [laughed|scratched his head]. \"You must make this mistake every day,\" he said. {H} told {hhis} story, and [they all laughed|everyone clapped]. From then on, on every [Sunday|Monday], there was {H}'s Mistake Bread in the window, and it was always sold out.",
])

SCHOOL = dict(theme="[the first day of school|being new|school]", lesson="[new things are only new once|it is good to be kind to those who are new]", event="went to school for the first time", moral="Be kind to the one who is new, for you were new once, too.", beats=[
    "[Tomorrow|The next day] would be {H}'s first day at school. {hHe} [lay awake for a long time|had a tickle in {hhis} tummy]. \"[What if nobody likes me|What if I get lost|What if it is too hard]?\" {hhe} asked. \"[Take your {t} with you|Put a {t} in your bag],\" said {hhis} [mother|father|grandmother]. \"Then you will have something from home.\"",
    "¶ In the morning {H} walked slowly along the road. {hHe} held {hhis} {t} tight. The school was big, and [it was full of noise|everyone seemed to know everyone]. {H} [stood by the door|sat down in the last row].",
    "\"Is this seat free?\" someone asked. It was {F} {f}. \"Yes,\" said {H} quietly. {F} sat down and [whispered|said], \"It is my first day. I am a little afraid.\" \"[Me too|So am I],\" said {H}. And [all at once|somehow] it was only half as bad.",
    "The teacher was {G} {g}. {gHe} [smiled at everyone|had a kind voice]. \"Today we will [learn the letter A|count to ten|draw our homes],\" {ghe} said. {H} [was very careful|put out {hhis} tongue a little while {hhe} worked], and it went well. \"[Well done|Very good], {H},\" said {G}.",
    "¶ At noon {H} and {F} sat {at}. They shared {foods}, and {H} showed {F} the {t}. \"[My father gave me a button to bring|I have something from home, too],\" said {F}. [They played until the bell rang|They talked until the bell rang].",
    "When {H} came home, everyone asked, \"How was it?\" \"[It was good|It was nice],\" said {H}. \"I learned something, and I have a friend. [When can I go again|Is it tomorrow yet]?\"",
])

BIRD = dict(theme="[a baby bird|letting go|taking care of someone]", lesson="[to love someone also means to let them go|care makes the weak strong]", event="took care of a baby bird", moral="Those whom we help to fly do not forget us.", beats=[
    "[After a storm|One spring morning], {H} found a [baby bird|little bird] {at}. It had fallen out of its nest, [and its wing was hurt|and it was too weak to fly]. \"Peep,\" it said.",
    "{H} [picked it up with both hands|put it in {hhis} hat] and carried it home. {hHe} made a nest of [wool and hay|soft grass|an old sock] in a [box|basket]. {hHe} fed it with [crumbs and seeds|bread and milk] and kept it warm [at night|by the stove].",
    "¶ {F} {f} came to visit. \"[What a sweet little bird|How small it is],\" said {F}. \"[What is its name|Has it got a name]?\" \"I call it [Peep|Sky|Crumb],\" said {H}. Every day the bird grew [stronger|a little]. It [sat on {H}'s shoulder|sang in the morning], and {H} was very happy.",
    "\"[Soon it will be able to fly|Its wing is well again],\" said {F} one day. \"Then it must go.\" {H} [did not want to hear that|shook {hhis} head]. \"[It likes it here|It will stay with me],\" {hhe} said, and {hhe} closed the window.",
    "¶ But the bird sat on the [windowsill|chair] and looked out. It did not sing any more. {H} [looked at it for a long time|lay awake that night]. In the morning {hhe} took a deep breath and opened the window [wide|as far as it would go]. \"[Fly, little one|The sky is yours],\" {hhe} said.",
    "The bird [flew once around {hhis} head|hopped onto {hhis} hand one last time]. Then it flew out, over {p}, up into the blue sky. {H} cried a little, and {F} [put an arm around {hhim}|stood next to {hhim}]. \"[You did the right thing|It is happy now],\" said {F}.",
    "¶ A year later, [on the first warm day|when the snow was gone], there was a [song|knock] at the window. It was the bird! And it was not alone. It had come to show {H} its [three little ones|family].",
])

BOAT = dict(theme="[a little boat|the sea|sailing]", lesson="[a calm head is the best sailor|friends are safe together]", event="sailed across the water in a little boat", moral="Small boats reach the shore, too, if all hands row together.", beats=[
    "{H} had built a little boat [out of an old barrel|from planks and rope]. It had a [red|white|patched] sail. \"I want to see what is on the other side of the water,\" said {H} to {F} {f}. \"Will you come with me?\" \"[Aye, captain|Of course I will]!\" said {F}.",
    "They took {foods}, [a jug of water|two blankets] and {a}. The wind [filled the sail|blew softly], and they [glided along|sailed over the blue water]. [Fish jumped beside them|A gull flew over their heads]. {F} [sang a sailor's song|put a hand into the cool water].",
    "¶ But in the afternoon, the wind grew strong. The waves were as high as [a house|hills]! The little boat went up and down. \"[I am afraid|We will sink]!\" cried {F}. \"[Hold on tight|Stay calm],\" said {H}. \"[You take the water out with the bucket, and I will steer|I will take down the sail, and you hold the rope].\"",
    "They worked [hard|side by side]. [Slowly|At last] the wind grew tired, and the sea was [flat|quiet] again. But where were they? [There was water everywhere|They could see no land]. Then a head came out of the water. It was a [whale|dolphin|seal]. \"[Good day|You look lost],\" it said. \"Throw me your rope, and I will pull you to the shore.\"",
    "¶ So they came to an island with [white sand|tall trees]. There lived {G} {g}, all alone. \"Visitors!\" {ghe} shouted [with joy|and waved both arms]. \"[Nobody has come here for years|I have been alone for so long].\" {gHe} [cooked soup for them|gave them sweet fruit], and they [sat by the fire|told stories] until late at night.",
    "In the morning the wind was good. \"Come with us,\" said {H} to {G}. \"There is room for three.\" {G} [did not have to think twice|packed {ghis} things at once]. And so two sailed out, and three came home.",
])

PAINT = dict(theme="[painting|colors|a gray day]", lesson="[a little color can change a day|what you give to others makes you happy]", event="painted the whole village", moral="A bit of color can change a gray day.", beats=[
    "It had rained for [seven days|a whole week]. Everything was gray: the sky, the houses, and the faces, too. [Nobody laughed|Nobody sang] any more. {H} [looked out of the window|pressed {hhis} nose to the window]. \"[Something must be done|This cannot go on],\" {hhe} said.",
    "{hHe} [found|took] three pots of paint in the [shed|cellar]: one red, one blue and one yellow. With a big brush {hhe} painted {hhis} [door|fence]. First [yellow suns|red flowers], then [blue fish|blue birds]. It looked [lovely|merry].",
    "¶ {F} {f} came by under an umbrella and stopped. \"What are you doing?\" asked {F}. \"I am painting the rain away,\" said {H}. {F} [laughed, for the first time that week|had to smile]. \"Can you paint my door, too?\" \"[Of course|Take a brush and help me],\" said {H}.",
    "They mixed red and yellow, and it was orange. They mixed blue and yellow, and it was green. [House after house|Door after door] became bright. {G} {g} [came out|opened a window] and [shook {ghis} head|grumbled]. \"[What a lot of nonsense|Doors should be brown],\" said {G}. But {ghe} [looked a little longer|did not go back inside].",
    "¶ \"What is your favorite color?\" asked {H}. {G} thought about it. \"[When I was small, I had a green {t}|I used to like blue],\" {ghe} said slowly. So {H} painted a big [green|blue] heart on {ghis} door. {G} [said nothing, but {ghis} eyes were wet|smiled, and it looked as if {ghe} had not done it for years].",
    "By evening the whole place was [full of color|as bright as a garden]. And then the clouds opened, and a rainbow stood over the roofs. \"[Look, the sky is painting, too|Look, the sky has learned from us]!\" cried {F}. Everyone came out [and danced in the puddles|to look at it].",
])

CLOCK = dict(theme="[time|a clock|hurrying]", lesson="[not everything must be done in a hurry|there is time for what matters]", event="was always in a hurry", moral="There is always time for a kind word.", beats=[
    "{H} was always in a hurry. {hHe} ran {to}, {hhe} ran {to2}, and {hhe} ran home again. \"[No time, no time|I am late, I am late]!\" {hhe} called. {hHe} ate {hhis} {foods} standing up and said only half of \"Good morning\".",
    "¶ One day {hhe} ran past {F} {f}, who sat on a bench {at}. \"Sit down with me for a moment,\" said {F}. \"The sun is so nice today.\" \"[No time|I cannot stop now],\" called {H}, and {hhe} was gone.",
    "Then it happened. {H} ran around a corner, and bump! {hHe} [fell over a wheelbarrow|slipped on a wet leaf] and hurt {hhis} [foot|knee|leg]. \"[You must rest for three days|You must sit still for a week],\" said {G} {g}, who [knew about such things|was called to help]. \"Sit still!\" cried {H}. \"But I have no time for that!\"",
    "¶ So {hhe} had to sit on the bench, next to {F}. The first hour was very long. [Then {hhe} heard a bird|Then {hhe} saw an ant that carried a crumb]. {hHe} had never noticed such things before. {F} [pointed at the clouds|peeled an apple]. \"That one looks like [a ship|a sleeping cat|an old shoe],\" said {F}. \"[No, like a whale|And that one like a goat],\" said {H}, and they laughed.",
    "{F} told {hhim} [about the time when {fhe} was young|all the news of the place], and {H} [listened|asked many questions]. The sun went over the sky, and [the day was over before {hhe} knew it|it was evening].",
    "¶ When {hhis} leg was well again, {H} [stood up|tried a few steps]. {hHe} could run now. But {hhe} [walked|went slowly]. {hHe} said \"Good morning\" to everyone, the whole of it. And every [day at noon|evening] {hhe} sat down on the bench next to {F}. \"[I have time|There is always time for this],\" said {H}.",
])

PLOTS = [LOST, FRIEND, STORM, HONEST, LEARN, RESCUE, SHARE, NIGHT, BROKE, PARTY, FETCH, SEED, RACE, WISH, BUILD, WOODS, QUARREL,
         TRADE, SLEEP, RIDDLE, STAR, MAP, SNOW, MUSIC, BREAD, SCHOOL, BIRD, BOAT, PAINT, CLOCK]
